"""What the Triton Python models and Python-based backends share."""
