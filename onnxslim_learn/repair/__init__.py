"""Repair: make a slimmed model compute what the original computed, from unlabelled inputs and without training."""
