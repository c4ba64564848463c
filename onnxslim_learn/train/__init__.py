"""Training on samples, whatever is learnt. Torch is imported here, in bridge and in learners only."""
