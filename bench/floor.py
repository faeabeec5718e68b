"""The bare nets in their runtimes, without server, pictures or files: what any service over them can at best reach."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np

from export import runtimes, versions
from export.runtimes import Run
from export.variants import Format
from lipsync.tensors import FACE_SIZE, MEL_BANDS, S3FD, WAV2LIP, WAV2LIP_BATCH, WINDOW_COLUMNS, Model


class Floor:
    """The detector and the generator of an exported repository, loaded."""

    def __init__(self, repository: Path) -> None:
        self._detector, self._generator = _load(repository, S3FD), _load(repository, WAV2LIP)

    def still(self, picture: Path, frames: int) -> dict[str, float]:
        """Seconds for one detection and for `frames` mouths in full batches."""
        image = cv2.imread(str(picture))
        if image is None:
            raise ValueError(f"{picture}: not a picture")
        seeded = np.random.default_rng(0)
        faces = seeded.integers(0, 256, (WAV2LIP_BATCH, FACE_SIZE, FACE_SIZE, 3), np.uint8)
        mel = seeded.uniform(-4, 4, (WAV2LIP_BATCH, MEL_BANDS, WINDOW_COLUMNS)).astype(np.float32)
        begin = time.perf_counter()
        self._detector((image[None],))
        detected = time.perf_counter()
        for start in range(0, frames, WAV2LIP_BATCH):
            count = min(WAV2LIP_BATCH, frames - start)
            self._generator((faces[:count], mel[:count]))
        return {"detection": detected - begin, "generation": time.perf_counter() - detected}


def _load(repository: Path, net: Model) -> Run:
    newest = versions.of(repository / net.name)[-1]
    return runtimes.load(net, newest.folder / Format(newest.record["format"]).file)
