"""The whole service compared with the original algorithm."""
