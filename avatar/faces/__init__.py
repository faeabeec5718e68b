"""Detect, select and track the face, and yield its box in every frame."""
