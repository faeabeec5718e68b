"""The newcomer's commands: `python -m demo` makes one video, `python -m demo up` keeps the service running."""
