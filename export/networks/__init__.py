"""Wav2Lip and S3FD in plain PyTorch, for inference only."""
