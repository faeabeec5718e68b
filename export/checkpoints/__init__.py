"""Checkpoints: the published files, how they are downloaded and verified, and how they are loaded."""
