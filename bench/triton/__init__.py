"""Measure the models behind Triton: throughput, latency, and the overhead of serving."""
