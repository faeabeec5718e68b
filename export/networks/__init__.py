"""Wav2Lip and S3FD in plain PyTorch, inference only, written from the layer lists in the design."""
