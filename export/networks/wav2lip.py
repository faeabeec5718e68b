"""Wav2Lip, a network from a mel window and a face to the face with matching lips (Prajwal et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Step = int | tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """One layer of the tables below: convolution, batch norm, ReLU.

    `residual` adds the input before the ReLU; `up` is a transposed convolution.
    """

    kind: Literal["conv", "residual", "up"]
    inputs: int
    outputs: int
    kernel: int = 3
    stride: Step = 1
    padding: int = 1
    output_padding: int = 0


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: Step = 1, padding: int = 1) -> Layer:
    return Layer("conv", inputs, outputs, kernel, stride, padding)


def _residual(channels: int) -> Layer:
    return Layer("residual", channels, channels)


def _up(inputs: int, outputs: int) -> Layer:
    return Layer("up", inputs, outputs, stride=2, output_padding=1)


FACE_ENCODER: tuple[tuple[Layer, ...], ...] = (
    (_conv(6, 16, kernel=7, padding=3),),
    (_conv(16, 32, stride=2), _residual(32), _residual(32)),
    (_conv(32, 64, stride=2), _residual(64), _residual(64), _residual(64)),
    (_conv(64, 128, stride=2), _residual(128), _residual(128)),
    (_conv(128, 256, stride=2), _residual(256), _residual(256)),
    (_conv(256, 512, stride=2), _residual(512)),
    (_conv(512, 512, padding=0), _conv(512, 512, kernel=1, padding=0)),
)
AUDIO_ENCODER: tuple[Layer, ...] = (
    *(_conv(1, 32), _residual(32), _residual(32)),
    *(_conv(32, 64, stride=(3, 1)), _residual(64), _residual(64)),
    *(_conv(64, 128, stride=3), _residual(128), _residual(128)),
    *(_conv(128, 256, stride=(3, 2)), _residual(256)),
    _conv(256, 512, padding=0),
    _conv(512, 512, kernel=1, padding=0),
)
# the input of each block is the output of the previous one, with the face features of the same size appended
FACE_DECODER: tuple[tuple[Layer, ...], ...] = (
    (_conv(512, 512, kernel=1, padding=0),),
    (Layer("up", 1024, 512, padding=0), _residual(512)),
    (_up(1024, 512), _residual(512), _residual(512)),
    (_up(768, 384), _residual(384), _residual(384)),
    (_up(512, 256), _residual(256), _residual(256)),
    (_up(320, 128), _residual(128), _residual(128)),
    (_up(160, 64), _residual(64), _residual(64)),
)
OUTPUT = _conv(80, 32)


class Block(nn.Module):
    """One `Layer` as a module; its tensors are called `conv_block.0` (convolution) and `.1` (batch norm)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        shape = (layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding)
        convolution = nn.ConvTranspose2d(*shape, layer.output_padding) if layer.kind == "up" else nn.Conv2d(*shape)
        self.conv_block = nn.Sequential(convolution, nn.BatchNorm2d(layer.outputs))
        self.residual = layer.kind == "residual"

    def forward(self, x: Tensor) -> Tensor:
        """Return FP32 [N,outputs,h',w'] for FP32 [N,inputs,h,w]."""
        y = self.conv_block(x)
        return torch.relu(y + x if self.residual else y)


class Wav2Lip(nn.Module):
    """The generator, with the tensor names of the published checkpoints, for inference only."""

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder_blocks = nn.ModuleList(_blocks(layers) for layers in FACE_ENCODER)
        self.audio_encoder = _blocks(AUDIO_ENCODER)
        self.face_decoder_blocks = nn.ModuleList(_blocks(layers) for layers in FACE_DECODER)
        self.output_block = nn.Sequential(Block(OUTPUT), nn.Conv2d(OUTPUT.outputs, 3, 1), nn.Sigmoid())

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        """Generate mouths.

        Args:
            mel: FP32 [N,1,80,16] from -4 to 4, one window per face.
            face: FP32 [N,6,96,96] from 0 to 1: the BGR crop with its lower half zero, then the whole crop.

        Returns:
            FP32 [N,3,96,96] BGR from 0 to 1.
        """
        features = []
        x = face
        for block in self.face_encoder_blocks:
            x = block(x)
            features.append(x)
        x = self.audio_encoder(mel)
        for block in self.face_decoder_blocks:
            x = torch.cat((block(x), features.pop()), dim=1)
        mouth: Tensor = self.output_block(x)
        return mouth


def _blocks(layers: tuple[Layer, ...]) -> nn.Sequential:
    return nn.Sequential(*(Block(layer) for layer in layers))
