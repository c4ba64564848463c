"""Training: an ONNX graph as a torch module, and what learns with it. Torch is imported here only."""
