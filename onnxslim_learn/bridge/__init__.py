"""An ONNX graph as a torch module, and the way back."""
