"""What an experiment is, and what can be done with one."""
