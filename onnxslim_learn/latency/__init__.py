"""Latency on onnxruntime: timed nodes, fitted costs, profiles."""
