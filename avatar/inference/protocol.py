"""The one small protocol through which the job reaches the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lipsync import tensors
from lipsync.arrays import Boxes, Floats, Images, Labels

from ..options import Generator

Frames = Images | Sequence[Images]  # [n,H,W,3], or n pictures [H,W,3] of one size, which are gathered on the way

GENERATORS = {Generator.WAV2LIP: tensors.WAV2LIP, Generator.WAV2LIP_GAN: tensors.WAV2LIP_GAN}
LIPSYNC = {Generator.WAV2LIP: tensors.LIPSYNC, Generator.WAV2LIP_GAN: tensors.LIPSYNC_GAN}


@dataclass(frozen=True)
class ModelInfo:
    """What the nets were made from.

    Attributes:
        stand_ins: names of the models whose checkpoint is a stand-in; empty with real weights.
        detector, segmenter: name what computes there, so that another export has another name; empty where it is
            not known.
    """

    stand_ins: tuple[str, ...] = ()
    detector: str = ""
    segmenter: str = ""


class InferenceClient(Protocol):
    """The models of the repository, as `lipsync.tensors` describes them.

    Every call may raise `avatar.errors.Unavailable` (down, not ready, too slow) and
    `lipsync.errors.InvalidInput` (the arrays do not fit).
    """

    async def check_ready(self) -> None:
        """Return when every model is ready; raise Unavailable at once when one is not."""

    async def model_info(self, net: Generator) -> ModelInfo:
        """What is behind the models that are used with `net`."""

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """Speech FP32 [n] (16 kHz) to mel windows FP32 [frames,80,16]."""

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        """Images UINT8 [n,H,W,3] BGR, n ≤ `lipsync.tensors.S3FD_BATCH`, to boxes [n,16,4] and scores [n,16]."""

    async def lipsync(self, frames: Frames, boxes: Boxes, windows: Floats, net: Generator) -> Images:
        """Frames (1 or n), boxes (1 or n) and n windows (n ≤ `WAV2LIP_BATCH`) to mouths UINT8 [n,96,96,3]."""

    async def segment(self, image: Images) -> Labels:
        """A picture UINT8 [H,W,3] RGB to labels INT32 [H,W]."""

    async def close(self) -> None:
        """Let go of the connection."""
