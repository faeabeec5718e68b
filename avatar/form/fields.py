"""The optional fields of the form: one `Field` for each, with its parser, its default and its description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from ..errors import InvalidField
from ..options import DEFAULTS, Options
from . import values

T = TypeVar("T", covariant=True)
E = TypeVar("E", bound=Enum)


@dataclass(frozen=True)
class Field(Generic[T]):
    """One optional field.

    Attributes:
        name: of the form field.
        parse: parses a value; raises ValueError with a phrase that says what is expected.
        default: the value of a field that is missing or empty.
        default_text: the default as a caller would write it.
        description: its values and their effect, for the documentation.
        choices: all values, if they can be listed.
    """

    name: str
    parse: Callable[[str], T]
    default: T
    default_text: str
    description: str
    choices: tuple[str, ...] = ()

    def read(self, form: Mapping[str, str]) -> T:
        """Return the value of the field in a form. Raises InvalidField."""
        text = form.get(self.name, "").strip()
        if not text:
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise InvalidField(self.name, f"expected {error}; got {values.echo(text)}") from None


def _choice(name: str, default: E, description: str) -> Field[E]:
    """Return the field of an enum: its values are the choices."""
    members = {member.value: member for member in type(default)}

    def parse(text: str) -> E:
        if text.lower() not in members:
            raise ValueError(values.one_of(members))
        return members[text.lower()]

    return Field(name, parse, default, default.value, description, tuple(members))


def _switch(name: str, default: bool, description: str) -> Field[bool]:
    return Field(name, values.parse_switch, default, str(default).lower(), description, ("true", "false"))


MODEL = _choice(
    "model",
    DEFAULTS.model,
    "The generator: `wav2lip` follows the audio most closely, `wav2lip_gan` draws a sharper mouth.",
)
FACE = Field(
    "face",
    values.parse_face,
    DEFAULTS.face,
    "best",
    "Which face speaks if there are several: the one with the highest detection score (`best`), the `largest`, the "
    "`left` or `right` one, one by its number from the left (0 is the first), or the one at or nearest to a point "
    "`x,y`. The face is selected in the first frame and then tracked.",
)
NO_FACE = _choice(
    "no_face",
    DEFAULTS.no_face,
    "What to do with a frame without a face. `fail`: reject the request. `keep`: leave the frame unchanged; gaps of up "
    "to one second are bridged by interpolation, unless there is a cut to another scene in them.",
)
DETECTION = _choice(
    "detection",
    DEFAULTS.detection,
    "How the face is detected. `exact`: in every frame, in the whole frame, as in the original. `fast`: around its "
    "last position, in as many frames as tracking needs.",
)
BLEND = _choice(
    "blend",
    DEFAULTS.blend,
    "How the mouth is put into the frame. `original`: the whole box with a hard edge. `feather`: only the lower face, "
    "with a soft edge and matched colors.",
)
PADS = Field(
    "pads",
    values.parse_pads,
    DEFAULTS.pads,
    ",".join(map(str, DEFAULTS.pads)),
    "Pixels added to the face box: `top,bottom,left,right`. The chin should be inside the box.",
)
SMOOTH = _switch("smooth", DEFAULTS.smooth, "Whether the face box is smoothed over five frames.")
BOX = Field(
    "box",
    values.parse_box,
    DEFAULTS.box,
    "-1,-1,-1,-1",
    "The face box, `top,bottom,left,right`, for every frame: no face is detected. `-1,-1,-1,-1`: detect the face.",
)
LENGTH = Field(
    "length",
    values.parse_length,
    (DEFAULTS.extend, DEFAULTS.trim),
    "loop,cut",
    "A video shorter than the audio starts again (`loop`), plays backward and forward (`bounce`), or stops at its last "
    "frame (`hold`). A longer video is cut at the end of the audio (`cut`) or shown to its end in silence (`keep`). "
    "One word or both.",
)
FPS = Field(
    "fps",
    values.parse_fps,
    DEFAULTS.fps,
    "25",
    f"Frames per second of a still, 1 to {values.MAX_STILL_FPS}. A video keeps its own frame rate.",
)
RESIZE_FACTOR = Field(
    "resize_factor",
    values.parse_resize_factor,
    DEFAULTS.resize_factor,
    "1",
    f"The sides of the image are divided by it first, 1 to {values.MAX_RESIZE_FACTOR}.",
)
ROTATE = _switch("rotate", DEFAULTS.rotate, "Whether the image is then rotated clockwise by 90°.")
CROP = Field(
    "crop",
    values.parse_crop,
    DEFAULTS.crop,
    "0,-1,0,-1",
    "What is then kept of the image: `top,bottom,left,right`; -1 means its bottom or right edge.",
)
MAX_HEIGHT = Field(
    "max_height",
    values.parse_max_height,
    DEFAULTS.max_height,
    "",
    f"Largest height of the result in pixels, at least {values.MIN_HEIGHT}; a higher image is scaled down. Empty: no "
    "limit.",
)
QUALITY = _choice(
    "quality",
    DEFAULTS.quality,
    "Of the encoder: `draft` (fast, coarse), `standard`, `high` (slow, almost lossless), `small` (slow, small file).",
)
BACKGROUND_EDGE = _choice(
    "background_edge",
    DEFAULTS.edge,
    "How the person is cut out of the background: `hard`, as PixelLib does it, or `soft`.",
)
BACKGROUND_VIDEO = _switch(
    "background_video",
    DEFAULTS.background_video,
    "Whether `background` (or `background_file`) applies to a video too.",
)

OPTION_FIELDS: tuple[Field[object], ...] = (
    MODEL,
    FACE,
    NO_FACE,
    DETECTION,
    BLEND,
    PADS,
    SMOOTH,
    BOX,
    LENGTH,
    FPS,
    RESIZE_FACTOR,
    ROTATE,
    CROP,
    MAX_HEIGHT,
    QUALITY,
    BACKGROUND_EDGE,
    BACKGROUND_VIDEO,
)


def parse_options(form: Mapping[str, str]) -> Options:
    """Return the options of a form; fields of other names are ignored. Raises InvalidField."""
    extend, trim = LENGTH.read(form)
    return Options(
        model=MODEL.read(form),
        face=FACE.read(form),
        no_face=NO_FACE.read(form),
        detection=DETECTION.read(form),
        blend=BLEND.read(form),
        pads=PADS.read(form),
        smooth=SMOOTH.read(form),
        box=BOX.read(form),
        extend=extend,
        trim=trim,
        fps=FPS.read(form),
        resize_factor=RESIZE_FACTOR.read(form),
        rotate=ROTATE.read(form),
        crop=CROP.read(form),
        max_height=MAX_HEIGHT.read(form),
        quality=QUALITY.read(form),
        edge=BACKGROUND_EDGE.read(form),
        background_video=BACKGROUND_VIDEO.read(form),
    )
