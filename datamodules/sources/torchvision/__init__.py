"""Data sets of torchvision as data modules."""
