"""Measure the models behind Triton: latency, and the overhead of serving."""
