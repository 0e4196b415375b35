"""The learning-curve command: what more training images would bring."""
