"""Generate speaking mouths from mel windows and frames, and put them into the frames."""
