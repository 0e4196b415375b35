"""Image files and arrays: reading, decoding, resizing and caching."""
