"""Configuration: from YAML and overrides to the objects of an experiment."""
