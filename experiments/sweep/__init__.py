"""Search: the space, the study, its trials and their winner."""
