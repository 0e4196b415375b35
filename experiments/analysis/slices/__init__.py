"""The slices command: on which images a recorded run does worse."""
