"""Samples to calibrate, repair and verify on: read from files, folders and functions, or made up."""
