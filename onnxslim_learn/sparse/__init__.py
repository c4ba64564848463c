"""Weight sparsification: which weights become zero, what the others become, and what that buys."""
