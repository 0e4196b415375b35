"""The tune command: learning-rate range test and batch-size search."""
