"""The job as streaming Triton models: `avatar` renders a video, `live` runs a session."""
