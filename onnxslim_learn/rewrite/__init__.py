"""Cutting: slice, mask, verify, save."""
