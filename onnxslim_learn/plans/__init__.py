"""Plans: what stays, as data, and how it is carried out."""
