"""The models behind Triton: throughput, latency and overhead."""
