"""Runs of the network itself."""

from __future__ import annotations

from export.networks import random_weights
from export.networks.inference import Wav2LipGraph
from export.validation import runtimes, samples
from lipsync import tensors


def test_a_network_with_random_weights_can_be_moved_and_run() -> None:
    run = runtimes.pytorch(Wav2LipGraph(random_weights.wav2lip()))
    (mouths,) = run(samples.timing(tensors.WAV2LIP, 1))
    assert mouths.shape == (1, 96, 96, 3)
