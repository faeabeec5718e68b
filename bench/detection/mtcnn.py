"""MTCNN in the place of S3FD: a real detector whose trained weights are in a wheel (facenet-pytorch, MIT license).

The wheel pins an old PyTorch, but its code runs with ours. Of torchvision it needs non-maximum suppression only, which
is here, so that torchvision need not be installed.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import torch  # before `_load` restores sys.modules: it can be imported only once
from torch import Tensor

from lipsync.arrays import Image
from lipsync.boxes import iou

from ..errors import BenchError

Box = tuple[float, float, float, float]


class Mtcnn:
    """Detects faces on the CPU."""

    def __init__(self) -> None:
        torch.set_num_threads(1)  # its images are small; more threads only wait for each other
        self._net = _load().MTCNN(keep_all=True, select_largest=False, device="cpu")

    def best(self, image: Image) -> Box | None:
        """Return the face with the highest score in an image UINT8 [H,W,3] BGR: x1 y1 x2 y2, or None."""
        boxes, scores = self._net.detect(np.ascontiguousarray(image[..., ::-1]))
        if boxes is None:
            return None
        x1, y1, x2, y2 = (float(each) for each in boxes[int(np.argmax(scores))])
        return x1, y1, x2, y2


def _load() -> ModuleType:
    """Import the wheel's module without its package, which imports more than the detector needs."""
    package = find_spec("facenet_pytorch")
    if package is None or package.submodule_search_locations is None:
        raise BenchError("facenet-pytorch is not installed; run `make setup`")
    stand_ins = _stand_ins(list(package.submodule_search_locations))
    replaced = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("facenet_pytorch.models.mtcnn")
    finally:
        for name, module in replaced.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _stand_ins(folder: list[str]) -> dict[str, ModuleType]:
    """Return the modules that the detector imports, by name."""
    package, functional, boxes = ModuleType("facenet_pytorch"), ModuleType("functional"), ModuleType("boxes")
    package.__path__ = folder
    boxes.__dict__["batched_nms"] = _batched_nms
    transforms = ModuleType("transforms")
    transforms.__dict__["functional"] = functional
    return {
        "facenet_pytorch": package,
        "torchvision": ModuleType("torchvision"),
        "torchvision.transforms": transforms,
        "torchvision.ops": ModuleType("ops"),
        "torchvision.ops.boxes": boxes,
    }


def _batched_nms(boxes: Tensor, scores: Tensor, images: Tensor, overlap: float) -> Tensor:
    """Return the indices of the boxes that are kept, best first: greedy suppression within each image."""
    order = np.argsort(-scores.numpy(), kind="stable")
    corners, image = boxes.numpy(), images.numpy()
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        suppressed = (iou(corners[best], corners[rest]) > overlap) & (image[rest] == image[best])
        order = rest[~suppressed]
    return torch.as_tensor(np.array(kept, np.int64))
