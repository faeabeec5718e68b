"""The exported graphs: each network with the arithmetic before and after it, so that its tensors are the table's.

Inputs and outputs are batches (`N` first) of the model's tensors in `lipsync.tensors`. `to_half` makes the networks
compute in FP16; inputs and outputs stay the same. A traced graph depends neither on the device nor on the sizes of the
trace.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lipsync import face_detection
from lipsync.tensors import CANDIDATES, FACE_SIZE

from .s3fd import S3FD
from .wav2lip import Wav2Lip

WHITE = 255.0  # full scale of a UINT8 channel
Graph = TypeVar("Graph", bound="Wav2LipGraph | S3FDGraph")


class Wav2LipGraph(nn.Module):
    """Wav2Lip, from images to images."""

    visible: Tensor  # FP32 [1,96,1,1]: 1 in the rows of the crop that the network may use, 0 in those it generates

    def __init__(self, net: Wav2Lip) -> None:
        super().__init__()
        self.net = net
        self.dtype = torch.float32
        visible = torch.ones(1, FACE_SIZE, 1, 1)
        visible[:, FACE_SIZE // 2 :] = 0
        self.register_buffer("visible", visible)

    def forward(self, face: Tensor, mel: Tensor) -> Tensor:
        """Return mouths UINT8 [N,96,96,3] BGR for crops UINT8 [N,96,96,3] BGR and mel windows FP32 [N,80,16]."""
        image = face.float() / WHITE
        # first the copy without its lower half, then the image itself
        stacked = torch.cat((image * self.visible, image), dim=3).permute(0, 3, 1, 2)
        mouth: Tensor = self.net(mel.unsqueeze(1).to(self.dtype), stacked.to(self.dtype))
        # TensorRT has UINT8 only as the type of an input that is cast at once and of an output that a cast makes
        return (mouth.float() * WHITE).permute(0, 2, 3, 1).to(torch.uint8)


class S3FDGraph(nn.Module):
    """S3FD, from images to candidate boxes; `lipsync.face_detection.decode_boxes` is the same decoding in NumPy."""

    means: Tensor  # FP32 [3]
    padding: Tensor  # FP32 [1,1024,5]: zeros behind the last cell, so that there is enough to choose from

    def __init__(self, net: S3FD) -> None:
        super().__init__()
        self.net = net
        self.dtype = torch.float32
        self.register_buffer("means", torch.tensor(face_detection.RGB_MEANS))
        self.register_buffer("padding", torch.zeros(1, CANDIDATES, 5))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best candidates for images UINT8 [N,H,W,3] BGR, before NMS.

        Returns:
            boxes FP32 [N,1024,4] (x1 y1 x2 y2, pixels) and scores FP32 [N,1024], best first. If an
            image has fewer candidates, the rest are boxes of zeros with score 0.
        """
        rgb = image.float().flip(3) - self.means  # the cast comes first, for TensorRT
        maps = self.net(rgb.permute(0, 3, 1, 2).to(self.dtype))
        decoded = [
            _decode(stride, score.float(), regression.float())
            for stride, score, regression in zip(face_detection.STRIDES, maps[::2], maps[1::2], strict=True)
        ]
        padding = self.padding.expand(rgb.shape[0], -1, -1)
        boxes = torch.cat([*(boxes for boxes, _ in decoded), padding[..., :4]], dim=1)
        scores = torch.cat([*(scores for _, scores in decoded), padding[..., 4]], dim=1)
        best, order = torch.topk(scores, CANDIDATES, dim=1)
        return boxes.gather(1, order.unsqueeze(2).expand(-1, -1, 4)), best


def to_half(graph: Graph) -> Graph:
    """Return a copy whose network computes in FP16. Softmax, boxes, channel norm sums and scaling stay in FP32.

    Batch norms are folded first, in FP32: variances and their epsilon of 1e-5 are too small for FP16.
    """
    half = copy.deepcopy(graph)
    half.eval()
    fold_batch_norms(half)
    half.net.half()
    half.dtype = torch.float16
    return half


def fold_batch_norms(graph: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, in place.

    The ONNX exporter itself folds those after plain convolutions, but not those after transposed convolutions, which
    take most of Wav2Lip's time.
    """
    for block in graph.modules():
        if not isinstance(block, nn.Sequential):
            continue
        for position, (layer, norm) in enumerate(zip(list(block), list(block)[1:], strict=False)):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                _fold(layer, norm)
                block[position + 1] = nn.Identity()


def _fold(layer: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    layer.weight, layer.bias = fuse_conv_bn_weights(
        layer.weight,
        layer.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(layer, nn.ConvTranspose2d),
    )


def _decode(stride: int, score: Tensor, regression: Tensor) -> tuple[Tensor, Tensor]:
    """Return one map's boxes FP32 [N,h·w,4] and scores FP32 [N,h·w], from score [N,2,h,w] and regression [N,4,h,w]."""
    # softmax over two channels is the logistic function of their difference
    scores = torch.sigmoid(score[:, 1] - score[:, 0]).flatten(1)
    rows = _centers(score[0, 0, :, 0]) * stride
    columns = _centers(score[0, 0, 0]) * stride
    side = float(face_detection.PRIOR_SIDE * stride)
    x = columns + face_detection.CENTER_VARIANCE * side * regression[:, 0]
    y = rows.unsqueeze(1) + face_detection.CENTER_VARIANCE * side * regression[:, 1]
    width, height = (side * torch.exp(face_detection.SIZE_VARIANCE * regression[:, 2:])).unbind(1)
    corners = torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), dim=3)
    return corners.flatten(1, 2), scores


def _centers(cells: Tensor) -> Tensor:
    """Return the centers of a vector's cells, FP32: 0.5, 1.5, …"""
    if torch.onnx.is_in_onnx_export():
        # one operator in TensorRT, too, whose parser makes a loop of a cumulative sum (10.1; newer ones may not)
        return torch.arange(cells.shape[0]).float() + 0.5
    # cumsum, not `arange`: a TorchScript trace would record the current device
    return torch.ones_like(cells).cumsum(0) - 0.5
