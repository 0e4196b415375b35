"""Whether one network is better than another, or only seems to be."""
