"""Limits of one call of a single model: the one source for the models, the documentation and the tests.

A small call can ask for a large answer: one image and a thousand mouths are a thousand images. The models check these
limits before they compute, so nothing of the size of the answer is allocated for a call over a limit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import tensors
from .arrays import Array
from .errors import InvalidInput
from .mel import HOP_LENGTH, SAMPLE_RATE
from .mel_windows import count_windows
from .tensors import MEL_BANDS, WINDOW_COLUMNS

MIB = 1 << 20
# Largest answer of one call. The process of the model holds two copies of it for a moment and Triton three, so that
# such a call takes 2.5 GB. Triton cannot send 2 GiB anyway.
MAX_ANSWER_BYTES = 512 * MIB
MAX_WINDOWS = MAX_ANSWER_BYTES // (MEL_BANDS * WINDOW_COLUMNS * 4)  # FP32; an hour at 29 frames per second
MAX_AUDIO_SECONDS = 3600  # 220 MiB of samples, computed in 2 s
MAX_CROPS = 4096  # 108 MiB of crops, made in half a second; a call of `lipsync` takes only 32 windows
MAX_NMS_IMAGES = 64  # 1.3 MB of candidates; a call of `detect_faces` takes only 4 images
MAX_SIDE = 16_384  # pixels; the maximum of the H.264 encoder
MIN_DETECTION_SIDE = 32  # pixels; S3FD has no output for less in some runtimes
# S3FD takes 0.5 GB of memory per megapixel, so its largest image is a setting: the one that also says to which size the
# job scales larger images down.
DETECTION_MEGAPIXELS_VARIABLE, DETECTION_MEGAPIXELS = "AVATAR_WORK_MEGAPIXELS", 8.3
LEAST_MEGAPIXELS = 1.0  # always allowed, because the job widens narrow images and searches regions of this size

SPLIT = "send them in several calls"  # windows, crops, images: as many as are allowed in each

Inputs = Mapping[str, Array]  # by name; an optional input that was not sent is absent


@dataclass(frozen=True)
class Limit:
    """One limit of a call.

    Attributes:
        text: what is allowed, for the documentation.
        check: raises InvalidInput for inputs over the limit, whose types and numbers of dimensions are right.
    """

    text: str
    check: Callable[[Inputs], None]


def check(model: str, inputs: Inputs) -> None:
    """Raise InvalidInput if a call of this model with these inputs is over a limit. Allocates nothing."""
    for limit in LIMITS.get(model, ()):
        limit.check(inputs)


def detection_pixels() -> int:
    """Return the size in pixels of the largest image that S3FD accepts in this process."""
    megapixels = float(os.environ.get(DETECTION_MEGAPIXELS_VARIABLE) or DETECTION_MEGAPIXELS)
    return int(max(megapixels, LEAST_MEGAPIXELS) * 1e6)


def _sides(name: str, least: int = 1) -> Limit:
    """Limit the sides of images UINT8 […,H,W,3]."""

    def check(inputs: Inputs) -> None:
        height, width = inputs[name].shape[-3:-1]
        if min(height, width) < least or max(height, width) > MAX_SIDE:
            raise InvalidInput(
                f"{name}: sides of {least} to {MAX_SIDE} pixels expected, got {width}x{height}; scale it"
            )

    return Limit(f"`{name}`: sides of {least} to {MAX_SIDE} pixels", check)


def _pixels(name: str) -> Limit:
    """Limit the size of images UINT8 […,H,W,3], because the memory that a network takes grows with it."""

    def check(inputs: Inputs) -> None:
        height, width = inputs[name].shape[-3:-1]
        if height * width > (most := detection_pixels()):
            allowed = f"at most {most / 1e6:g} megapixels ({DETECTION_MEGAPIXELS_VARIABLE}) expected"
            raise InvalidInput(f"{name}: {allowed}, got {width}x{height}; scale it down")

    allowed = (
        f"`{DETECTION_MEGAPIXELS_VARIABLE}` megapixels (default {DETECTION_MEGAPIXELS}), as Triton's process has it"
    )
    return Limit(f"`{name}`: at most {allowed}", check)


def _rows(names: tuple[str, ...], most: int) -> Limit:
    """Limit the lengths of inputs."""

    def check(inputs: Inputs) -> None:
        for name in names:
            if name in inputs and not 1 <= (count := len(inputs[name])) <= most:
                remedy = f"; {SPLIT}" if count else ""
                raise InvalidInput(f"{name}: 1 to {most} expected in one call, got {count}{remedy}")

    return Limit(f"{', '.join(f'`{name}`' for name in names)}: 1 to {most}", check)


def _audio() -> Limit:
    """Limit the length of the speech."""
    most = MAX_AUDIO_SECONDS * SAMPLE_RATE

    def check(inputs: Inputs) -> None:
        if (samples := inputs["audio"].size) > most:
            got = f"got {samples / SAMPLE_RATE:.0f} s ({samples} samples)"
            raise InvalidInput(
                f"audio: at most {MAX_AUDIO_SECONDS} s expected in one call, {got}; send it in several calls"
            )

    return Limit(f"`audio`: at most {MAX_AUDIO_SECONDS} s ({most} samples)", check)


def _windows() -> Limit:
    """Limit the windows that `mel_spectrogram` makes."""

    def check(inputs: Inputs) -> None:
        fps, columns = float(inputs["fps"][0]), inputs["audio"].size // HOP_LENGTH + 1
        if (windows := count_windows(columns, fps)) > MAX_WINDOWS:
            seconds = inputs["audio"].size / SAMPLE_RATE
            got = f"{seconds:.0f} s at {fps:g} frames per second are {windows} windows"
            raise InvalidInput(f"audio: {got}, at most {MAX_WINDOWS} are allowed in one call; {SPLIT}")

    return Limit(
        f"at most {MAX_WINDOWS} windows ({MAX_ANSWER_BYTES // MIB} MiB): an hour at 29 frames per second", check
    )


def _pasted() -> Limit:
    """Limit the images that `face_paste` makes."""

    def check(inputs: Inputs) -> None:
        count, (height, width) = len(inputs["mouths"]), inputs["frames"].shape[1:3]
        one, most_mib = height * width * 3, MAX_ANSWER_BYTES // MIB
        if one > MAX_ANSWER_BYTES:
            has = f"an image of {width}x{height} has {one // MIB} MiB"
            raise InvalidInput(f"frames: {has}, at most {most_mib} MiB are allowed; scale it down")
        if count * one > MAX_ANSWER_BYTES:
            asked = f"{count} images of {width}x{height} are {count * one // MIB} MiB"
            allowed = f"at most {most_mib} MiB ({MAX_ANSWER_BYTES // one} such images) are allowed in one call"
            raise InvalidInput(f"mouths: {asked}, {allowed}; {SPLIT}")

    uhd = MAX_ANSWER_BYTES // (3840 * 2160 * 3)
    return Limit(f"at most {MAX_ANSWER_BYTES // MIB} MiB of images: {uhd} of 3840×2160", check)


# The limits of each model that has some; an ensemble has those of the models that it runs.
LIMITS: Mapping[str, tuple[Limit, ...]] = {
    tensors.MEL_SPECTROGRAM.name: (_audio(), _windows()),
    tensors.S3FD.name: (_sides("image", MIN_DETECTION_SIDE), _pixels("image")),
    tensors.FACE_NMS.name: (_rows(("boxes", "scores"), MAX_NMS_IMAGES),),
    tensors.FACE_CROP.name: (_sides("frames"), _rows(("frames", "boxes", "mel"), MAX_CROPS)),
    tensors.FACE_PASTE.name: (_sides("frames"), _rows(("frames", "boxes", "mouths"), MAX_CROPS), _pasted()),
    tensors.SEGMENTATION.name: (_sides("image"), _pixels("image")),
}
