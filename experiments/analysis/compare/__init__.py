"""The compare command: which configuration is better, and whether that can be known."""
