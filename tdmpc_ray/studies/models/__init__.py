"""Checkpoints as MLflow models."""
