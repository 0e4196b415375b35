"""Classifiers: what is learned."""

from lightning_modules.classifier import ImageClassifier

__all__ = ["ImageClassifier"]
