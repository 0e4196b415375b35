"""The sweep command: a search over configurations."""
