"""Runs the sweep command on the machines of a cluster."""
