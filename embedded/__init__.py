"""The real Triton server from its PyPI wheel, for machines without Docker. `python -m embedded`."""
