"""The background: find the person, and replace what is around them."""
