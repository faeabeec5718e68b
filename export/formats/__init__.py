"""File formats: convert a network to ONNX, TorchScript or OpenVINO, and quantize it."""
