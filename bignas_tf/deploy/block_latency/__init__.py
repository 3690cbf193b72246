"""Latency tables measured: files of a space's blocks, timed here or read from phones' CSV."""
