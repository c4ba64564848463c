"""Nets that tests, scripts and benchmarks share; no part of the wheel.

- ``notation``: how a small net is written as text, and random inputs for it.
- ``zoo``: small nets that between them spell everything the library must understand; ``variants``: combinations beside.
- ``operators``: one small net for every operator of the table that no zoo net uses; ``forms``: onnxruntime's own
  operators in all their forms.
- ``exports``, ``oddities``: public architectures and odd constructions, written by both exporters of PyTorch.
- ``published``: nets of well-known kinds as their authors spell them, with the axes that people leave open.
- ``pretrained``: trained models that packages ship, fetched once.
"""
