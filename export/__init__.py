"""From checkpoints to a Triton model repository: `python -m export`."""

import os

# onnxruntime and NNCF would report how they are used, over the network; both ask the environment when imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("NNCF_CI", "1")
