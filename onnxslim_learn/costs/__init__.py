"""What a model costs: polynomials in the widths, and measured latency."""
