"""What to cut: criteria score units, budgets choose widths."""
