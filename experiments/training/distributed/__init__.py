"""Training on several devices and nodes."""
