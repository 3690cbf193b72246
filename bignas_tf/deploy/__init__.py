"""From a finished Keras model to a file (TFLite, ONNX, ...) that is checked, run and timed.

What programs call lies here, and what all of it shares: `model_file` and `tflite` convert,
`formats` writes the other formats, `runner` and `file_evaluation` run what was written. The
rooms are `conversion`, how a file is made and looked into; `finetuning`, networks that are
trained once more for their file; `latency`, files timed on this machine; `android`, the same
on phones; `block_latency`, tables of a space's blocks, measured on either.
"""
