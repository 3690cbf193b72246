"""From a finished Keras model to a file (TFLite, ONNX, ...) that is checked, run and timed."""
