"""Triton configurations: a ModelConfig protobuf per model and profile."""
