"""Generate the media of the workloads when they are needed: a face of any size, as image or video, and speech."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import soundfile

from lipsync.arrays import Floats, Image

from .. import ffmpeg_pipe
from ..paths import SAMPLES
from .workloads import FPS, Kind, Workload

VERSION = 4  # of the drawing below; files of an older version are generated again
HEAD = ((318, 250), (165, 205))  # center and half axes of the head, with hair, in samples/face.png, in pixels
FEATHER = 9  # pixels of that image over which the edge of the head fades into the background
HEAD_PART = 0.5  # mean height of the head, with hair, as a part of the image height: head and shoulders
HEAD_PIXELS = 560  # maximum height of the head: the stand-in detector finds no larger face
_PNG_END, _PNG_TAIL = b"IEND", 12  # name of the last chunk, and its size in bytes


@dataclass(frozen=True)
class Files:
    """Face and speech of a workload."""

    face: Path
    speech: Path


def files(workload: Workload, folder: Path) -> Files:
    """Return the workload's files in `folder`; generate missing ones. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = "png" if workload.kind is Kind.STILL else "mp4"
    length = "" if workload.kind is Kind.STILL else f"-{workload.seconds:g}s"
    face = folder / f"v{VERSION}-{workload.kind}-{workload.width}x{workload.height}{length}.{suffix}"
    speech = folder / f"v{VERSION}-speech-{workload.seconds:g}s.wav"
    if not face.exists():
        half = face.with_stem(f"{face.stem}.part")
        if workload.kind is Kind.STILL:
            _write_image(half, next(frames(workload.width, workload.height, 1)))
        else:
            _write_video(half, workload.width, workload.height, round(workload.seconds * FPS))
        half.replace(face)
    if not speech.exists():
        _write_speech(speech, workload.seconds)
    return Files(face, speech)


class UniqueCopies:
    """Makes copies with the same content but other bytes, so that no cache has seen them.

    Args:
        folder: for the copies; its owner removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count()

    def of(self, face: Path) -> Path:
        """Return a copy of a PNG or mp4 that contains a unique comment."""
        comment = f"bench {uuid4().hex}".encode()
        copy = self._folder / f"{next(self._numbers)}{face.suffix}"
        copy.write_bytes(with_comment(face.read_bytes(), comment))
        return copy


def with_comment(data: bytes, comment: bytes) -> bytes:
    """Return the PNG with a text chunk before its end, or the mp4 with a box of free space after it."""
    if data[-_PNG_TAIL:][4:8] == _PNG_END:
        chunk = b"tEXtComment\0" + comment
        whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return data[:-_PNG_TAIL] + whole + data[-_PNG_TAIL:]
    return data + struct.pack(">I", 8 + len(comment)) + b"free" + comment


def frames(width: int, height: int, number: int) -> Iterator[Image]:
    """Yield the sample face in front of a fixed rough gray wall; it moves, zooms and tilts like a speaker."""
    image = cv2.imread(str(SAMPLES / "face.png"))
    if image is None:
        raise OSError(f"{SAMPLES / 'face.png'}: cannot be read")
    (x, y), axes = HEAD
    mask = np.zeros(image.shape[:2], np.float32)
    cv2.ellipse(mask, (x, y), axes, 0, 0, 360, [1.0], cv2.FILLED)
    mask = cv2.GaussianBlur(mask, (0, 0), FEATHER).astype(np.float32)[:, :, None]
    premultiplied = image.astype(np.float32) * mask
    wall = _wall(width, height)
    size = min(HEAD_PART * height, HEAD_PIXELS) / (2 * axes[1])  # scale from the sample to the frame
    for i in range(number):
        time = i / FPS
        zoom = size * (1 + 0.06 * math.sin(2 * math.pi * time / 7))
        tilt = math.radians(3 * math.sin(2 * math.pi * time / 5))
        at = (
            width * (0.5 + 0.08 * math.sin(2 * math.pi * time / 6)),
            height * (0.5 + 0.03 * math.sin(2 * math.pi * time / 4)),
        )
        cos, sin = zoom * math.cos(tilt), zoom * math.sin(tilt)
        matrix = np.array(((cos, -sin, at[0] - cos * x + sin * y), (sin, cos, at[1] - sin * x - cos * y)))
        head, seen = (
            cv2.warpAffine(each, matrix, (width, height), flags=cv2.INTER_LINEAR).reshape(height, width, -1)
            for each in (premultiplied, mask)
        )
        yield np.clip(head + wall * (1 - seen), 0, 255).astype(np.uint8)


def _wall(width: int, height: int) -> Floats:
    """Return bluish gray noise of several scales, in which nothing looks like skin; FP32 [H,W,3]."""
    noise = np.random.default_rng(0)
    rough = np.zeros((height, width), np.float32)
    for cell, strength in ((128, 26.0), (32, 14.0), (8, 8.0), (1, 5.0)):
        coarse = noise.standard_normal((math.ceil(height / cell) + 1, math.ceil(width / cell) + 1)).astype(np.float32)
        rough += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    wall: Floats = rough[:, :, None] + np.array((140, 128, 116), np.float32)
    return wall


def _write_image(path: Path, image: Image) -> None:
    if not cv2.imwrite(str(path), image):
        raise OSError(f"{path}: cannot be written")


def _write_video(path: Path, width: int, height: int, number: int) -> None:
    raw = ["-f", "rawvideo", "-pixel_format", "bgr24", "-video_size", f"{width}x{height}", "-framerate", str(FPS)]
    coded = ["-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-f", "mp4", str(path)]
    images = (np.ascontiguousarray(image).reshape(-1).data for image in frames(width, height, number))
    ffmpeg_pipe.run(["-v", "error", "-y", *raw, "-i", "pipe:0", *coded], images)


def _write_speech(path: Path, seconds: float) -> None:
    """Write the sample recording, repeated if it is too short."""
    sound, rate = soundfile.read(SAMPLES / "speech.wav", dtype="int16")
    soundfile.write(path, np.resize(sound, round(seconds * rate)), rate)
