"""The options of a job: what a caller may choose beyond the original's form.

Every default is the behavior of the original service; the default of `detection`, which finds almost the same boxes in
much less time, is explained in docs/adr/0015. `avatar.form.fields` parses and documents each option.

Coordinates are pixels of the image as it is processed: upright, and scaled down first if it is larger than
`Limits.max_work_pixels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from lipsync.boxes import PADS

STILL_FPS = Fraction(25)

Sides = tuple[int, int, int, int]  # top, bottom, left, right


class Generator(Enum):
    """The lip-sync model, by its checkpoint."""

    WAV2LIP = "wav2lip"
    WAV2LIP_GAN = "wav2lip_gan"


class NoFace(Enum):
    """What to do with a frame in which no face is found."""

    FAIL = "fail"
    KEEP = "keep"


class Detection(Enum):
    """How the face is detected."""

    FAST = "fast"
    EXACT = "exact"


class Blend(Enum):
    """How the generated face is put into the frame."""

    ORIGINAL = "original"
    FEATHER = "feather"


class ExtendMode(Enum):
    """What is shown if the video is shorter than the audio."""

    LOOP = "loop"
    BOUNCE = "bounce"
    HOLD = "hold"


class TrimMode(Enum):
    """What is shown if the video is longer than the audio."""

    CUT = "cut"
    KEEP = "keep"


class Quality(Enum):
    """Named levels of the encoder: a preset and a constant rate factor each."""

    DRAFT = "draft"
    STANDARD = "standard"
    HIGH = "high"
    SMALL = "small"


class EdgeMode(Enum):
    """How the person is cut out of the background."""

    HARD = "hard"
    SOFT = "soft"


class FaceOrder(Enum):
    """Which of several faces is selected, by score, size or position."""

    BEST = "best"
    LARGEST = "largest"
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class FacePoint:
    """The face at a point of the image, or the nearest face."""

    x: int
    y: int


@dataclass(frozen=True)
class FaceIndex:
    """A face by its index from the left; the first one is 0."""

    index: int


FaceSelection = FaceOrder | FaceIndex | FacePoint


@dataclass(frozen=True)
class Options:
    """The options of one job.

    Attributes:
        model: the lip-sync model.
        face: which of several faces speaks.
        no_face: what to do with a frame without a face.
        detection: how the face is detected.
        blend: how the generated face is put into the frame.
        pads: pixels added to the face box at the top, bottom, left and right.
        smooth: whether the boxes are smoothed over five frames.
        box: top, bottom, left, right of the face in every frame; None to detect it.
        extend: what is shown if the video is shorter than the audio.
        trim: what is shown if the video is longer than the audio.
        fps: frames per second of a still.
        resize_factor: the sides of the image are divided by it, before the other transforms.
        rotate: whether the image is then rotated clockwise by 90 degrees.
        crop: top, bottom, left, right of what is then kept; -1 means the bottom or right edge of the image.
        max_height: the largest height of the result in pixels; None for no limit.
        quality: level of the encoder.
        edge: how the person is cut out of the background.
        background_video: whether the background of a video is replaced too.
    """

    model: Generator = Generator.WAV2LIP
    face: FaceSelection = FaceOrder.BEST
    no_face: NoFace = NoFace.FAIL
    detection: Detection = Detection.FAST
    blend: Blend = Blend.ORIGINAL
    pads: Sides = PADS
    smooth: bool = True
    box: Sides | None = None
    extend: ExtendMode = ExtendMode.LOOP
    trim: TrimMode = TrimMode.CUT
    fps: Fraction = STILL_FPS
    resize_factor: int = 1
    rotate: bool = False
    crop: Sides = (0, -1, 0, -1)
    max_height: int | None = None
    quality: Quality = Quality.STANDARD
    edge: EdgeMode = EdgeMode.HARD
    background_video: bool = False


DEFAULTS = Options()
