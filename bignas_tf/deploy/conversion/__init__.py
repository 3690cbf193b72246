"""How files are made and looked into: TensorFlow's converter, SavedModel, ONNX, operators."""
