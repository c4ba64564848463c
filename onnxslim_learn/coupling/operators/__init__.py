"""The operator table: what every operator does with the digits of its axes, and what its nodes are."""
