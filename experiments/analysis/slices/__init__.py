"""On which images a recorded run does worse than on the rest."""
