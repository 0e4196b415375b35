"""Data sources: one data module for each kind of data set."""
