"""Figures of this project, and the programs that take them; a package, as others install a folder of this name."""
