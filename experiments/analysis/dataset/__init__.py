"""What the data holds, before anything is trained on it."""
