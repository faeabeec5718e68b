"""Checkpoints: which ones are published, how they are fetched, and how they are loaded."""
