"""Checkpoints to ONNX to a Triton model repository. `python -m export`."""
