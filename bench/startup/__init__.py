"""What a job costs before its first frame, with networks that answer at once."""
