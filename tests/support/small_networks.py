"""Networks of a few layers in the place of Wav2Lip and S3FD: what is around them in a graph stays the real one.

A network in FP16 is slow on a CPU, and it is the arithmetic around it that TensorRT and old runtimes are strict about.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.networks.inference import S3FDGraph, Wav2LipGraph, to_half
from lipsync import face_detection, tensors
from lipsync.tensors import Model


class Generator(nn.Module):
    """Wav2Lip's inputs and output, and a batch norm that is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(6, 3, 3, padding=1), nn.BatchNorm2d(3))

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(face) + mel.sum())


class Detector(nn.Module):
    """S3FD's input, and its twelve maps: the scores and the boxes of each stride."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Conv2d(3, channels, 1, stride) for stride in face_detection.STRIDES for channels in (2, 4)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(head(image) for head in self.heads)


def half_graph(model: Model) -> nn.Module:
    """Return the graph of `s3fd` or `wav2lip` in FP16 with a small network in it."""
    torch.manual_seed(5)
    if model is tensors.S3FD:
        return to_half(S3FDGraph(Detector()).eval())  # type: ignore[arg-type]
    return to_half(Wav2LipGraph(Generator()).eval())  # type: ignore[arg-type]
