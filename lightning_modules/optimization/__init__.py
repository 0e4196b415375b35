"""Optimizers, schedules, fine-tuning, SAM and sharded training."""
