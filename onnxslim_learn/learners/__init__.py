"""What is learnt while training: widths, zeros, weights."""
