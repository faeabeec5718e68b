"""The files that works are done on, made when they are wanted: a face at any size, still or moving, and speech."""

from __future__ import annotations

import math
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from avatar.media.ffmpeg import executable

from .workloads import FPS, Kind, Work

Picture = NDArray[np.uint8]

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
MADE = 4  # version of what is drawn here; a file of an older one is made anew
HEAD = ((318, 250), (165, 205))  # centre and half axes of the head in samples/face.png, hair included, in pixels
FEATHER = 9  # pixels of that picture over which the head's edge fades into the background
HEAD_PART = 0.5  # of the picture's height that the head, hair included, takes on average: head and shoulders
HEAD_PIXELS = 560  # its height at most: the stand-in detector knows no larger face
_PNG_END, _PNG_TAIL = b"IEND", 12  # the last chunk's name, and its bytes


@dataclass(frozen=True)
class Files:
    """A work's face and speech."""

    face: Path
    speech: Path


def files(work: Work, folder: Path) -> Files:
    """The work's files in `folder`, made where they are not there yet. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = "png" if work.kind is Kind.STILL else "mp4"
    length = "" if work.kind is Kind.STILL else f"-{work.seconds:g}s"
    face = folder / f"v{MADE}-{work.kind}-{work.width}x{work.height}{length}.{suffix}"
    speech = folder / f"v{MADE}-speech-{work.seconds:g}s.wav"
    if not face.exists():
        half = face.with_stem(f"{face.stem}.part")
        if work.kind is Kind.STILL:
            _write_picture(half, next(_frames(work.width, work.height, 1)))
        else:
            _write_video(half, work.width, work.height, round(work.seconds * FPS))
        half.replace(face)
    if not speech.exists():
        _write_speech(speech, work.seconds)
    return Files(face, speech)


class Fresh:
    """Files that show the same and are not the same: no cache can know them.

    Args:
        folder: where they lie; to be removed by whoever made it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count()

    def of(self, face: Path) -> Path:
        """A copy of a PNG or mp4 with a note in it that no other has."""
        note = f"bench {uuid4().hex}".encode()
        copy = self._folder / f"{next(self._numbers)}{face.suffix}"
        copy.write_bytes(noted(face.read_bytes(), note))
        return copy


def noted(data: bytes, note: bytes) -> bytes:
    """A PNG with a text chunk before its end, or an mp4 with a box of free space after it."""
    if data[-_PNG_TAIL:][4:8] == _PNG_END:
        chunk = b"tEXtComment\0" + note
        whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return data[:-_PNG_TAIL] + whole + data[-_PNG_TAIL:]
    return data + struct.pack(">I", 8 + len(note)) + b"free" + note


def _frames(width: int, height: int, number: int) -> Iterator[Picture]:
    """The samples' face before a gray, rough wall: it drifts, nears and tilts as a speaker does, and the wall stays."""
    picture = cv2.imread(str(SAMPLES / "face.png"))
    if picture is None:
        raise OSError(f"{SAMPLES / 'face.png'}: cannot be read")
    (x, y), axes = HEAD
    mask = np.zeros(picture.shape[:2], np.float32)
    cv2.ellipse(mask, (x, y), axes, 0, 0, 360, [1.0], cv2.FILLED)
    mask = cv2.GaussianBlur(mask, (0, 0), FEATHER).astype(np.float32)[:, :, None]
    premultiplied = picture.astype(np.float32) * mask
    wall = _wall(width, height)
    size = min(HEAD_PART * height, HEAD_PIXELS) / (2 * axes[1])  # pixels here a pixel there
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


def _wall(width: int, height: int) -> NDArray[np.float32]:
    """Gray with blotches of many sizes, bluish, so that nothing in it looks like skin; FP32 [H,W,3]."""
    noise = np.random.default_rng(0)
    rough = np.zeros((height, width), np.float32)
    for cell, strength in ((128, 26.0), (32, 14.0), (8, 8.0), (1, 5.0)):
        coarse = noise.standard_normal((math.ceil(height / cell) + 1, math.ceil(width / cell) + 1)).astype(np.float32)
        rough += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    wall: NDArray[np.float32] = rough[:, :, None] + np.array((140, 128, 116), np.float32)
    return wall


def _write_picture(path: Path, picture: Picture) -> None:
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"{path}: cannot be written")


def _write_video(path: Path, width: int, height: int, number: int) -> None:
    raw = ["-f", "rawvideo", "-pixel_format", "bgr24", "-video_size", f"{width}x{height}", "-framerate", str(FPS)]
    coded = ["-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-f", "mp4", str(path)]
    process = subprocess.Popen(
        [executable(), "-v", "error", "-y", *raw, "-i", "pipe:0", *coded], stdin=subprocess.PIPE, process_group=0
    )
    try:
        assert process.stdin  # noqa: S101 - for the types; it was asked for
        for frame in _frames(width, height, number):
            process.stdin.write(frame.tobytes())
        process.stdin.close()
        if process.wait():
            raise OSError(f"{path}: ffmpeg ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()


def _write_speech(path: Path, seconds: float) -> None:
    """The samples' recording, from its beginning again where it is too short."""
    sound, rate = soundfile.read(SAMPLES / "speech.wav", dtype="int16")
    soundfile.write(path, np.resize(sound, round(seconds * rate)), rate)
