"""From checkpoints to a Triton model repository: `python -m export`."""

import os
import sys

# onnxruntime, OpenVINO and NNCF report over the network how they are used, OpenVINO by being imported. One asks the
# environment; the other two go without where their reporter cannot be imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
