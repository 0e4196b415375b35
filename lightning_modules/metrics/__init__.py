"""Metrics of an epoch's outputs, and their names."""
