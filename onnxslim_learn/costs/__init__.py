"""What a model costs: polynomials in the widths, activation memory, the roofline of a device."""
