"""Several recorded runs as one predictor."""
