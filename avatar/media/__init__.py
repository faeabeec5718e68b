"""Media files: probe, decode, transform and encode images, videos and audio."""
