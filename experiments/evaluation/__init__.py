"""Pure functions on predictions: metrics, intervals, tests and calibration."""
