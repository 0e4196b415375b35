"""Backbones: timm's networks and ours, their weights and heads."""
