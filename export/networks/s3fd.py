"""S3FD, a network from images to face scores and boxes at six scales (Zhang et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Maps = tuple[Tensor, ...]


@dataclass(frozen=True)
class Layer:
    """A convolution with ReLU; its `head`, if it has one, outputs a score map and a regression map.

    Attributes:
        pool: whether max-pooling halves the map before the convolution.
        normed: whether the channels are scaled to a learned length before the head.
        backgrounds: number of background channels in the head's scores; the largest counts.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: bool = False
    head: str = ""
    normed: bool = False
    backgrounds: int = 1


LAYERS: tuple[Layer, ...] = (
    Layer("conv1_1", 3, 64),
    Layer("conv1_2", 64, 64),
    Layer("conv2_1", 64, 128, pool=True),
    Layer("conv2_2", 128, 128),
    Layer("conv3_1", 128, 256, pool=True),
    Layer("conv3_2", 256, 256),
    Layer("conv3_3", 256, 256, head="conv3_3_norm", normed=True, backgrounds=3),  # stride 4
    Layer("conv4_1", 256, 512, pool=True),
    Layer("conv4_2", 512, 512),
    Layer("conv4_3", 512, 512, head="conv4_3_norm", normed=True),  # stride 8
    Layer("conv5_1", 512, 512, pool=True),
    Layer("conv5_2", 512, 512),
    Layer("conv5_3", 512, 512, head="conv5_3_norm", normed=True),  # stride 16
    Layer("fc6", 512, 1024, padding=3, pool=True),  # so this map is four cells larger
    Layer("fc7", 1024, 1024, kernel=1, padding=0, head="fc7"),  # stride 32
    Layer("conv6_1", 1024, 256, kernel=1, padding=0),
    Layer("conv6_2", 256, 512, stride=2, head="conv6_2"),  # stride 64
    Layer("conv7_1", 512, 128, kernel=1, padding=0),
    Layer("conv7_2", 128, 256, stride=2, head="conv7_2"),  # stride 128
)
HEADS: tuple[Layer, ...] = tuple(layer for layer in LAYERS if layer.head)


class ChannelNorm(nn.Module):
    """Scale each cell's channels to length 1, then each channel by a learned weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N,C,h,w] for [N,C,h,w]. The sum of squares is always FP32, because FP16 ends at 65504."""
        length = x.float().square().sum(dim=1, keepdim=True).sqrt() + 1e-10
        return (x / length).to(x.dtype) * self.weight.view(1, -1, 1, 1)


class S3FD(nn.Module):
    """The detector, with the tensor names of the published checkpoint, for inference only."""

    def __init__(self) -> None:
        super().__init__()
        for layer in LAYERS:
            shape = (layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding)
            self.add_module(layer.name, nn.Conv2d(*shape))
            if layer.normed:
                self.add_module(layer.head, ChannelNorm(layer.outputs))
            if layer.head:
                self.add_module(f"{layer.head}_mbox_conf", nn.Conv2d(layer.outputs, layer.backgrounds + 1, 3, 1, 1))
                self.add_module(f"{layer.head}_mbox_loc", nn.Conv2d(layer.outputs, 4, 3, 1, 1))

    def forward(self, image: Tensor) -> Maps:
        """Compute the score and regression maps at six scales.

        Args:
            image: FP32 [N,3,H,W], RGB minus (104, 117, 123), H and W at least 32.

        Returns:
            Twelve maps: alternately score FP32 [N,2,h,w] (background, face) and regression FP32 [N,4,h,w],
            for strides 4, 8, 16, 32, 64, 128. No softmax; `lipsync.face_detection.decode_boxes` decodes them.
        """
        maps: list[Tensor] = []
        x = image
        for layer in LAYERS:
            if layer.pool:
                x = functional.max_pool2d(x, 2)
            x = torch.relu(self.get_submodule(layer.name)(x))
            if layer.head:
                maps += self._head(layer, x)
        return tuple(maps)

    def _head(self, layer: Layer, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.get_submodule(layer.head)(x) if layer.normed else x
        score = self.get_submodule(f"{layer.head}_mbox_conf")(features)
        if layer.backgrounds > 1:
            background = score[:, : layer.backgrounds].amax(dim=1, keepdim=True)
            score = torch.cat((background, score[:, layer.backgrounds :]), dim=1)
        return score, self.get_submodule(f"{layer.head}_mbox_loc")(features)
