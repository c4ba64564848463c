"""Running models on onnxruntime: sessions, timings, executors, caches, processes."""
