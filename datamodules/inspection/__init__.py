"""What can be said of images without a model: statistics and duplicates."""
