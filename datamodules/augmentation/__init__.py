"""Random changes of training images, in batches."""
