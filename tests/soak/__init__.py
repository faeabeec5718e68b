"""A soak of the whole service: callers of every kind, while its processes are killed. `python -m tests.soak --help`."""
