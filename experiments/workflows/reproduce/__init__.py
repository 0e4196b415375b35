"""Whether a recipe's claim holds: its seeds, held against the number it claims."""
