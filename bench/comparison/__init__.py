"""Compare the whole service with the original algorithm."""
