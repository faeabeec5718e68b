"""Load the whole service with many forms at once."""
