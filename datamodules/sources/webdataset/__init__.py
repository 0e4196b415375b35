"""WebDataset shards as a data module."""
