"""The bare nets in onnxruntime, without server, pictures or files: what any service over them can at best reach."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np

from export.configs import NET_FILE
from export.onnx_file import session
from export.repository import VERSION
from lipsync.tensors import FACE_SIZE, MEL_BANDS, S3FD, WAV2LIP, WAV2LIP_BATCH, WINDOW_COLUMNS


class Floor:
    """The detector and the generator of an exported repository, loaded."""

    def __init__(self, repository: Path) -> None:
        self._detector = session(repository / S3FD.name / VERSION / NET_FILE)
        self._generator = session(repository / WAV2LIP.name / VERSION / NET_FILE)

    def still(self, picture: Path, frames: int) -> dict[str, float]:
        """Seconds for one detection and for `frames` mouths in full batches."""
        image = cv2.imread(str(picture))
        if image is None:
            raise ValueError(f"{picture}: not a picture")
        seeded = np.random.default_rng(0)
        faces = seeded.integers(0, 256, (WAV2LIP_BATCH, FACE_SIZE, FACE_SIZE, 3), np.uint8)
        mel = seeded.uniform(-4, 4, (WAV2LIP_BATCH, MEL_BANDS, WINDOW_COLUMNS)).astype(np.float32)
        begin = time.perf_counter()
        self._detector.run(None, {"image": image[None]})
        detected = time.perf_counter()
        for start in range(0, frames, WAV2LIP_BATCH):
            count = min(WAV2LIP_BATCH, frames - start)
            self._generator.run(None, {"face": faces[:count], "mel": mel[:count]})
        return {"detection": detected - begin, "generation": time.perf_counter() - detected}
