"""Demonstrate the service: `python -m demo` renders one video, `python -m demo up` runs the service until Ctrl-C."""
