"""Runs the trials of a sweep on this machine."""
