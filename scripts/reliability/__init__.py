"""Proofs that take hours: what holds of any file, of any moment, of any machine."""
