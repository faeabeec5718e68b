"""Validation: run an exported model, compare it with its FP32 network, and report."""
