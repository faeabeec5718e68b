"""What a caller may choose beyond the original's form; every default is the original's behaviour (`detection`, whose
default gives all but the same boxes much sooner, is docs/adr/0015's).

One table, `OPTIONS`, describes each option for all faces of the job: its name, its default as text, its values.
Coordinates are pixels of the picture as it is worked on: upright, and scaled down first where it is larger than
`intake.Limits.work_pixels`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any

from lipsync.boxes import PADS

from .errors import InvalidField

STILL_FPS = Fraction(25)
MAX_COORDINATE = 16_384  # pixels; no coordinate, pad or height makes sense beyond it
MAX_FACTOR = 16
MAX_STILL_FPS = 120
MAX_FACE_INDEX = 15  # of the sixteen that a frame may show
MAX_ECHO = 40  # characters of a bad value that its error repeats

Sides = tuple[int, int, int, int]


class Generator(Enum):
    """The generator, by its checkpoint."""

    WAV2LIP = "wav2lip"
    WAV2LIP_GAN = "wav2lip_gan"


class NoFace(Enum):
    """What becomes of a frame in which no face is found."""

    FAIL = "fail"
    KEEP = "keep"


class Detection(Enum):
    """How thoroughly a face is looked for."""

    FAST = "fast"
    EXACT = "exact"


class Blend(Enum):
    """How the generated face is put back."""

    ORIGINAL = "original"
    FEATHER = "feather"


class ExtendMode(Enum):
    """Where the speech is longer than the video."""

    LOOP = "loop"
    BOUNCE = "bounce"
    HOLD = "hold"


class TrimMode(Enum):
    """Where the speech is shorter than the video."""

    CUT = "cut"
    KEEP = "keep"


class Quality(Enum):
    """Named levels of the encoder: its preset and its constant rate factor."""

    DRAFT = "draft"
    STANDARD = "standard"
    HIGH = "high"
    SMALL = "small"


class EdgeMode(Enum):
    """How the person is cut out before another background."""

    HARD = "hard"
    SOFT = "soft"


class FaceOrder(Enum):
    """Which of several faces."""

    BEST = "best"
    LARGEST = "largest"
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class FacePoint:
    """The face at a point of the picture, or the one nearest to it."""

    x: int
    y: int


@dataclass(frozen=True)
class FaceIndex:
    """A face by its number from the left, the first one is 0."""

    index: int


FaceSelection = FaceOrder | FaceIndex | FacePoint


@dataclass(frozen=True)
class Options:
    """The choices of one job, as `OPTIONS` describes them.

    Attributes:
        detection: how thoroughly the face is looked for.
        pads: pixels added to the face's box at the top, bottom, left and right.
        smooth: whether boxes are smoothed over five frames.
        box: top, bottom, left, right of the face in every frame, instead of detection; None where it is looked for.
        fps: frames a second of a still.
        resize_factor: the picture's sides are divided by it, before anything else.
        rotate: whether the picture is then turned clockwise by 90 degrees.
        crop: top, bottom, left, right of what is then kept; -1 for the picture's own bottom or right.
        max_height: rows of the result at most; None for as many as the picture has.
        edge: how the person is cut out of the background.
        background_video: whether a video's background is changed too.
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


@dataclass(frozen=True)
class Option:
    """One optional field.

    Attributes:
        name: of the form field.
        default: as text; leaving the field out, or empty, means the same.
        about: its values and what they do, for documentation.
        read: text to the attributes of `Options` that it sets. Raises ValueError with what was expected.
        choices: all values, where they can be listed.
    """

    name: str
    default: str
    about: str
    read: Callable[[str], Mapping[str, Any]]
    choices: tuple[str, ...] = ()


DEFAULTS = Options()


def parse(texts: Mapping[str, str]) -> Options:
    """The options that these fields ask for; fields of other names are not looked at.

    Raises:
        InvalidField: names the field, and what it takes.
    """
    chosen: dict[str, Any] = {}
    for option in OPTIONS:
        text = texts.get(option.name, "").strip()
        if not text:
            continue
        try:
            chosen |= option.read(text)
        except ValueError as error:
            shown = ascii(text if len(text) <= MAX_ECHO else text[:MAX_ECHO] + "...")
            raise InvalidField(option.name, f"{error} expected, got {shown}") from None
    return Options(**chosen)


def _choice(name: str, default: Enum, about: str, attribute: str = "") -> Option:
    by_value = {member.value: member for member in type(default)}
    values = tuple(by_value)

    def read(text: str) -> Mapping[str, Any]:
        if text.lower() not in by_value:
            raise ValueError(_one_of(values))
        return {attribute or name: by_value[text.lower()]}

    return Option(name, default.value, about, read, values)


def _switch(name: str, default: bool, about: str) -> Option:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

    def read(text: str) -> Mapping[str, Any]:
        if text.lower() not in words:
            raise ValueError("true or false")
        return {name: words[text.lower()]}

    return Option(name, str(default).lower(), about, read, ("true", "false"))


def _whole(name: str, default: str, low: int, high: int, about: str) -> Option:
    def read(text: str) -> Mapping[str, Any]:
        return {name: _number(text, low, high)}

    return Option(name, default, about, read)


def _number(text: str, low: int, high: int) -> int:
    """Raises ValueError: no whole number within the two."""
    digits = text.strip()
    # not `int` alone: it takes underscores, and digits of all scripts
    if not (digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= 6):
        raise ValueError(f"a whole number from {low} to {high}")
    number = int(digits)
    if not low <= number <= high:
        raise ValueError(f"a whole number from {low} to {high}")
    return number


def _four(text: str, low: int) -> Sides:
    """Raises ValueError."""
    try:
        parts = [_number(part, low, MAX_COORDINATE) for part in text.replace(",", " ").split()]
        top, bottom, left, right = parts
    except ValueError:
        raise ValueError(f"four whole numbers (top, bottom, left, right) from {low} to {MAX_COORDINATE}") from None
    return top, bottom, left, right


def _pads(text: str) -> Mapping[str, Any]:
    return {"pads": _four(text, -MAX_COORDINATE)}


def _crop(text: str) -> Mapping[str, Any]:
    crop = top, bottom, left, right = _four(text, -1)
    if min(top, left) < 0 or 0 <= bottom <= top or 0 <= right <= left:
        raise ValueError("a rectangle: top,bottom,left,right with top < bottom and left < right (or -1 for the end)")
    return {"crop": crop}


def _box(text: str) -> Mapping[str, Any]:
    box = top, bottom, left, right = _four(text, -1)
    if box == (-1, -1, -1, -1):  # the original tool's way to say "look for it"
        return {"box": None}
    if min(box) < 0 or bottom <= top or right <= left:
        raise ValueError("a rectangle: top,bottom,left,right with top < bottom and left < right")
    return {"box": box}


def _fps(text: str) -> Mapping[str, Any]:
    try:
        if len(text) > MAX_ECHO or not set(text) <= set("0123456789./"):
            raise ValueError
        fps = Fraction(text)
        if not 1 <= fps <= MAX_STILL_FPS:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"1 to {MAX_STILL_FPS} frames a second, such as 29.97 or 30000/1001,") from None
    return {"fps": _exact(fps)}


def _exact(fps: Fraction) -> Fraction:
    """29.97 means 30000/1001, and 23.976 means 24000/1001."""
    near = Fraction(round(fps * Fraction(1001, 1000)) * 1000, 1001)
    return near if fps.denominator != 1 and abs(fps - near) < Fraction(1, 100) else fps


def _face(text: str) -> Mapping[str, Any]:
    sides = {side.value: side for side in FaceOrder}
    try:
        if text.lower() in sides:
            return {"face": sides[text.lower()]}
        numbers = [_number(part, 0, MAX_COORDINATE) for part in text.replace(",", " ").split()]
        if len(numbers) == 2:
            return {"face": FacePoint(*numbers)}
        (number,) = numbers
        return {"face": FaceIndex(_number(str(number), 0, MAX_FACE_INDEX))}
    except ValueError:
        few = f"a number from 0 to {MAX_FACE_INDEX}, or a point x,y"
        raise ValueError(f"{', '.join(sides)}, {few}") from None


def _length(text: str) -> Mapping[str, Any]:
    longer = {member.value: member for member in ExtendMode}
    shorter = {member.value: member for member in TrimMode}
    chosen: dict[str, Any] = {}
    for word in text.lower().replace(",", " ").split():
        name, members = ("extend", longer) if word in longer else ("trim", shorter)
        if word not in members or name in chosen:
            raise ValueError(f"one of {_one_of(longer)}, one of {_one_of(shorter)}, or both with a comma between")
        chosen[name] = members[word]
    return chosen


def _max_height(text: str) -> Mapping[str, Any]:
    return {"max_height": _number(text, 64, MAX_COORDINATE)}


def _one_of(values: Mapping[str, Any] | tuple[str, ...]) -> str:
    *most, last = values
    return f"{', '.join(most)} or {last}"


OPTIONS: tuple[Option, ...] = (
    _choice(
        "model",
        Generator.WAV2LIP,
        "The generator: `wav2lip` follows the speech best, `wav2lip_gan` draws a sharper mouth.",
    ),
    Option(
        "face",
        "best",
        "Whose lips move where there are several faces: the one that the detector is surest of (`best`), the "
        "`largest`, the `left` or `right` one, one by its number from the left (0 is the first), or the one at a point "
        "`x,y`. It is chosen in the first frame, then followed.",
        _face,
    ),
    _choice(
        "no_face",
        NoFace.FAIL,
        "A frame without a face: `fail` refuses the clip; `keep` shows such a frame as it is (in gaps of up to a "
        "second the face is taken to be between where it was and where it comes back, and speaks on).",
    ),
    _choice(
        "detection",
        Detection.FAST,
        "How the face is looked for: `exact` in every frame, in all of it, as the original does; `fast` around where "
        "it was, in as many frames as it takes to follow it.",
    ),
    _choice(
        "blend",
        Blend.ORIGINAL,
        "How the mouth is put back: `original` pastes the whole box with a hard edge; `feather` only the lower face, "
        "with a soft edge and its colour matched.",
    ),
    Option(
        "pads",
        ",".join(map(str, PADS)),
        "Pixels added to the face's box: `top,bottom,left,right`. Let the chin be in it.",
        _pads,
    ),
    _switch("smooth", True, "Whether the box is smoothed over five frames."),
    Option(
        "box",
        "-1,-1,-1,-1",
        "The face's box, `top,bottom,left,right`, for every frame: nothing is looked for. `-1,-1,-1,-1`: look for it.",
        _box,
    ),
    Option(
        "length",
        "loop,cut",
        "A video shorter than the speech begins anew (`loop`), runs back and forth (`bounce`) or stands still (`hold`);"
        " a longer one ends with the speech (`cut`) or is shown to its end, silently (`keep`). One word or two.",
        _length,
    ),
    Option("fps", "25", "Frames a second of a still, 1 to 120; a video keeps its own.", _fps),
    _whole("resize_factor", "1", 1, MAX_FACTOR, "The picture's sides are divided by it first."),
    _switch("rotate", False, "Whether the picture is then turned clockwise by 90°."),
    Option(
        "crop",
        "0,-1,0,-1",
        "What is then kept of the picture: `top,bottom,left,right`; -1 stands for its own bottom or right.",
        _crop,
    ),
    Option(
        "max_height",
        "",
        "Rows of the result at most; a higher picture is scaled down. Empty: as high as it is.",
        _max_height,
    ),
    _choice(
        "quality",
        Quality.STANDARD,
        "Of the encoder: `draft` (fast, coarse), `standard`, `high` (slow, near lossless), `small` (slow, small).",
    ),
    _choice(
        "background_edge",
        EdgeMode.HARD,
        "How the person is cut out of the background: `hard`, as PixelLib does it, or `soft`.",
        attribute="edge",
    ),
    _switch("background_video", False, "Whether `background` (or `background_file`) counts for a video too."),
)
