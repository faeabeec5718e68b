"""Measure the encoder and the conversion of its frames, without networks."""
