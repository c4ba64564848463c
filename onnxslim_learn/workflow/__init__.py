"""What a user asks for, from file to file: slim, sparsify, expand, Pareto."""
