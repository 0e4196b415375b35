"""Several runs as one piece of work; independent of each other."""
