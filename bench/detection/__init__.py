"""Compare `detection=fast` with the detection of every frame, with a real detector on a real face in motion."""
