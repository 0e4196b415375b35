"""The reproduce command: a recipe's seeds, held against its claim."""
