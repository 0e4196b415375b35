"""The same sweep on several machines, placed by an existing engine."""
