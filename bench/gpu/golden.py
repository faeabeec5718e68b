"""The golden data behind the live server: the networks of the server against the results of the original code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferInput

from export.validation.accuracy import MIN_IOU, MIN_PSNR_DB
from export.variants import Precision
from lipsync import face_detection
from lipsync.arrays import Array, Batch
from lipsync.boxes import iou
from lipsync.tensors import S3FD, WAV2LIP

from ..paths import ROOT
from .repository import GOLDEN_DETECTOR
from .transport import CALL_SECONDS, Memory, Server, connect, prepared

FOLDER = ROOT / "tests" / "golden"
Check = dict[str, object]


def mouths(server: Server, memory: Memory, precision: Precision, folder: Path = FOLDER) -> Check:
    """Compare the mouths of `wav2lip`, PSNR in dB."""
    with np.load(folder / "wav2lip.npz") as data:
        batch: Batch = (data["faces"], data["mel"])
        expected = data["mouths"]
    with prepared(memory, server, WAV2LIP, batch) as request:
        request.send()
        found = request.output()
    error = float(np.square(found.astype(float) - expected).mean())
    psnr = 10 * math.log10(255**2 / error) if error else math.inf
    limit = MIN_PSNR_DB[precision]
    return _check(f"mouths, shared memory {memory}", "PSNR, dB", min(psnr, 120.0), limit)


def faces(server: Server, precision: Precision, folder: Path = FOLDER) -> Check:
    """Compare the best faces of the detector, the smallest IoU with the recorded boxes."""
    with np.load(folder / "s3fd.npz") as data:
        frames, expected = data["frames"], data["best"]
    outputs = _call(server.url, GOLDEN_DETECTOR, frames)
    overlaps = []
    for boxes, scores, best in zip(outputs["boxes"], outputs["scores"], expected, strict=True):
        candidates = boxes[scores > face_detection.FACE_SCORE - 0.1]
        overlaps.append(float(iou(best[:4], candidates).max(initial=0.0)))
    return _check("faces", "IoU", min(overlaps), MIN_IOU[precision])


def _check(what: str, unit: str, value: float, limit: float) -> Check:
    return {"table": "golden", "what": what, "unit": unit, "value": value, "limit": limit, "passed": value >= limit}


def _call(url: str, model: str, frames: Array) -> dict[str, Array]:
    client = connect(url)
    try:
        request = InferInput(S3FD.inputs[0].name, list(frames.shape), S3FD.inputs[0].dtype)
        request.set_data_from_numpy(frames)
        result = client.infer(model, [request], client_timeout=CALL_SECONDS)
        return {tensor.name: result.as_numpy(tensor.name) for tensor in S3FD.outputs}
    finally:
        client.close()
