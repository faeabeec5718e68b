"""What the `pytorch` backend runs networks with. Only this folder of `lipsync` imports PyTorch."""
