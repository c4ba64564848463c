"""Bases of axes that meet linear maps alone, rotated to principal directions before a cut."""
