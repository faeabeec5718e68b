"""Benchmarks of this service: `python -m bench --help` lists the commands."""
