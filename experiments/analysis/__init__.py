"""Analyses of recorded runs and of data; independent of each other."""
