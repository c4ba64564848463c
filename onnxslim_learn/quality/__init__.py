"""What outputs mean, and how good a model is against the original: blocks, detections, a user's metric, a verdict."""
