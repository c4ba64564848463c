"""Cuts that change no output."""
