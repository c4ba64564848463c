"""MorphNet: widths learnt under a regularizer."""
