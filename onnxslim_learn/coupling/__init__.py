"""What must be cut together: relations, layouts, the solver, groups and their reasons."""
