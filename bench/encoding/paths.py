"""The two ways from frames and mouths to an mp4 that are compared: as it was, and as the service does it.

Before, ffmpeg converted the frames, and x264 searched for motion as its preset does.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from avatar.generation.finishing import FrameFinisher, to_even
from avatar.limits import LIMITS
from avatar.media.ffmpeg import PIPE_BYTES
from avatar.media.ffmpeg_args import AudioInput, VideoFormat, encode_args
from avatar.options import Blend, Quality
from lipsync.arrays import Box, Image, Images
from lipsync.face_crop import crop

from .. import ffmpeg_pipe
from ..comparison.generated_media import HEAD_PART, frames
from ..comparison.workloads import FPS, Kind
from ..paths import SAMPLES

# swscale's accurate conversion, with which ffmpeg made the planes before `lipsync.yuv` did
BY_FFMPEG = "scale=flags=bicubic+accurate_rnd:out_color_matrix=smpte170m:out_range=tv,format=yuv420p,"
MOUTHS = 25  # different mouths, one after the other and again

Finish: TypeAlias = Callable[[Image, Box, Image], NDArray[np.uint8]]


@dataclass(frozen=True)
class Scene:
    """What is encoded: frames of one size with a mouth in each; those of a still are one object."""

    kind: Kind
    images: Sequence[Image]
    box: Box
    mouths: Images

    @classmethod
    def draw(cls, kind: Kind, width: int, height: int, count: int) -> Scene:
        """Draw `count` frames of a head, which moves if it is a video."""
        drawn = list(islice(frames(width, height, count), 1 if kind is Kind.STILL else count))
        images = drawn * count if kind is Kind.STILL else drawn
        side = round(height * HEAD_PART * 0.7)  # of the face
        left, top = (width - side) // 2, (height - side) // 2
        box = np.array([left, top, left + side, top + side], np.int32)
        face = crop(images[0][None], box[None])[0]
        mouths = np.stack([_moved(face, n) for n in range(MOUTHS)])
        return cls(kind, images, box, mouths)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        height, width = self.images[0].shape[:2]
        return width, height


@dataclass(frozen=True)
class Cost:
    """Seconds of processor time of this process and of ffmpeg, and of the clock, for all frames; bytes of the mp4."""

    own: float
    ffmpeg: float
    wall: float
    size: int

    @property
    def cpu(self) -> float:
        """Processor time of both processes."""
        return self.own + self.ffmpeg


def encode(scene: Scene, out: Path, *, by_ffmpeg: bool) -> Cost:
    """Paste the mouths, convert and encode; `by_ffmpeg`: ffmpeg converts. Raises OSError if ffmpeg fails."""
    finisher = FrameFinisher(Blend.ORIGINAL)
    finish: Finish = finisher.finish_bgr if by_ffmpeg else finisher.finish
    own, children, start = time.process_time(), _children_seconds(), time.perf_counter()
    frames = (finish(image, scene.box, scene.mouths[n % MOUTHS]) for n, image in enumerate(scene.images))
    ffmpeg_pipe.run(_args(scene, out, by_ffmpeg=by_ffmpeg), (frame.reshape(-1).data for frame in frames), PIPE_BYTES)
    return Cost(
        time.process_time() - own,
        _children_seconds() - children,
        time.perf_counter() - start,
        out.stat().st_size,
    )


def _args(scene: Scene, out: Path, *, by_ffmpeg: bool) -> list[str]:
    width, height = (to_even(side) for side in scene.size)
    video = VideoFormat(width, height, Fraction(FPS))
    audio = AudioInput(SAMPLES / "speech.wav", True, Fraction(len(scene.images), FPS), LIMITS.max_pixels)
    args = encode_args(video, audio, out, Quality.STANDARD)
    if by_ffmpeg:
        args[args.index("-pixel_format") + 1] = "bgr24"
        filters = args.index("-vf") + 1
        args[filters] = BY_FFMPEG + args[filters]
        search = args.index("-x264-params")
        del args[search : search + 2]  # the preset's own, as it was
    return args


def _moved(face: Image, n: int) -> Image:
    """Return the face with its lower half shifted down by some pixels, as if it spoke."""
    moved, half = face.copy(), face.shape[0] // 2
    shift = round(4 + 4 * np.sin(2 * np.pi * n * 4 / MOUTHS))
    moved[half + shift :] = face[half : face.shape[0] - shift]
    return moved


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
