"""`detection=fast` compared with `exact` on moving clips, with the models of a live Triton: boxes and cost."""

import subprocess
from contextlib import aclosing
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from avatar.context import JobContext, RequestLogger
from avatar.faces.locator import locate_faces
from avatar.inference.grpc_client import GrpcInferenceClient
from avatar.media.ffmpeg import executable
from avatar.options import Detection, Options
from embedded.server import Triton
from lipsync.arrays import Floats, Images
from lipsync.boxes import iou
from tests.support.media import probe_video

FRAMES = 50


def clip(folder: Path, face: NDArray[np.uint8], speed: float) -> Path:
    """Write a clip of 320×240: the portrait sways, nods and comes nearer in front of a wall."""
    wall = np.random.RandomState(0).randint(40, 120, (30, 40, 3)).astype(np.uint8)
    wall[..., 2] = np.minimum(wall[..., 2], wall[..., 0])  # not the color of skin
    wall = cv2.resize(wall, (320, 240), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    high, wide = face.shape[:2]
    path = folder / "clip.mp4"
    raw = ["-f", "rawvideo", "-pixel_format", "bgr24", "-video_size", "320x240", "-framerate", "25", "-i", "pipe:0"]
    encoder = subprocess.Popen(
        [executable(), "-v", "error", *raw, "-qp", "10", "-pix_fmt", "yuv420p", "-y", str(path)], stdin=subprocess.PIPE
    )
    assert encoder.stdin
    with encoder.stdin as pipe:
        for number in range(FRAMES):
            t = number / 25 * speed
            scale = 240 / high * 0.7 * (1 + 0.08 * np.sin(1.3 * t))
            matrix = cv2.getRotationMatrix2D((wide / 2, high / 2), 4 * np.sin(2.1 * t), scale)
            shift = (160 + 30 * np.sin(1.6 * t) - wide / 2, 120 + 10 * np.sin(2.5 * t + 1) - high / 2)
            matrix = matrix + np.array([[0, 0, shift[0]], [0, 0, shift[1]]])
            mask = cv2.warpAffine(np.full((high, wide), 255, np.uint8), matrix, (320, 240))
            moved = cv2.warpAffine(face, matrix, (320, 240), flags=cv2.INTER_AREA)
            pipe.write(np.where(mask[..., None] > 127, moved, wall).astype(np.uint8).tobytes())
    assert encoder.wait() == 0
    return path


class CountingClient(GrpcInferenceClient):
    """A client that counts the pixels that are sent to the detector."""

    pixels = 0

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        self.pixels += sum(frame.size for frame in frames) // 3
        return await super().detect_faces(frames)


async def boxes(path: Path, stand_in_triton: Triton, detection: Detection) -> tuple[NDArray[np.float32], int]:
    models = CountingClient(stand_in_triton.grpc_address)
    job = JobContext(models, RequestLogger("test"), Options(detection=detection))
    try:
        async with aclosing(locate_faces(await probe_video(path, job.options, job.limits), FRAMES, job)) as frames:
            return np.array([frame.box async for frame in frames], np.float32), models.pixels
    finally:
        await models.close()


@pytest.mark.slow  # `make test` replays recorded boxes: tests/bench/detection/test_real_face.py
@pytest.mark.parametrize("speed", [0.3, 1.0])
async def test_fast_detection_finds_the_boxes_of_exact_detection_with_fewer_pixels(
    tmp_path: Path, stand_in_triton: Triton, samples: Path, speed: float
) -> None:
    path = clip(tmp_path, cv2.imread(str(samples / "face.png")).astype(np.uint8), speed)
    exact, all_pixels = await boxes(path, stand_in_triton, Detection.EXACT)
    fast, pixels = await boxes(path, stand_in_triton, Detection.FAST)
    overlaps = [float(iou(one, other[None])[0]) for one, other in zip(fast, exact, strict=True)]
    mean, least = np.mean(overlaps), min(overlaps)
    print(f"speed {speed}: IoU {mean:.3f}, least {least:.3f}; {pixels / all_pixels:.0%} of the pixels")
    assert mean >= 0.95
    assert least >= 0.85
    assert pixels < all_pixels / 3
