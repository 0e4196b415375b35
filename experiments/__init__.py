"""Experiments: configuration, training, tracking and what is made of recorded runs."""

if not __name__.startswith("darkroom."):
    raise ImportError("experiments is part of darkroom: import darkroom.experiments")
