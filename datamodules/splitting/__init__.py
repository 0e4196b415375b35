"""Splits, folds, subsets and sampling of a data set's images."""
