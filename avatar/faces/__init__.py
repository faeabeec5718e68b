"""The face: detect, select and track it, and give its box in every frame."""
