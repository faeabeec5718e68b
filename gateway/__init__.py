"""The job's HTTP face. `python -m gateway`."""
