"""Latency of TFLite files on Android devices, measured over adb with the native tool."""
