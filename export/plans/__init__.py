"""TensorRT plans: build them where they run, judge them, and put them in place.

This room runs in NVIDIA's Triton image as well, in whose Python there is no torch, no onnx and no protobuf: besides the
standard library it imports NumPy, `lipsync` and modules of this package that need no more.
"""
