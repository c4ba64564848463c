"""Weight sparsification: zeros learnt while training."""
