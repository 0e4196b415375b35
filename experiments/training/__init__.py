"""Trains one run and records it."""
