"""Measures this service against the original algorithm."""
