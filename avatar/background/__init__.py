"""Find the person in an image and replace the background."""
