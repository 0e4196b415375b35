"""The sweep section of a recipe: dimensions, points, constraints and their checks."""
