"""The options of the form that decide what is seen, and which face is chosen; parsed as the service does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ._errors import InvalidRequest

Sides = tuple[int, int, int, int]  # top, bottom, left, right

ORDERS = ("best", "largest", "left", "right")
DETECTED: Sides = (-1, -1, -1, -1)  # of `box`: the face is detected
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class View:
    """What a frame looks like before its face is looked for, and which face is chosen.

    Attributes:
        face: one of `ORDERS`, the number of a face from the left, or a point x, y.
        box: of every frame, if it is given; None to detect the face.
        pads: pixels added to the box.
        keep: whether a frame without a face stays as it is; otherwise the service rejects the request.
        exact: whether the whole frame is searched at its own size.
        resize_factor, rotate, crop, max_height: as in the form; `max_height` 0 is no limit.
    """

    face: str | int | tuple[int, int] = "best"
    box: Sides | None = None
    pads: Sides = (0, 10, 0, 0)
    keep: bool = False
    exact: bool = False
    resize_factor: int = 1
    rotate: bool = False
    crop: Sides = (0, -1, 0, -1)
    max_height: int = 0

    @classmethod
    def of(cls, options: Mapping[str, str]) -> View:
        """Return the view that the options of a form describe; other options are ignored. Raises InvalidRequest."""
        given = {name: value.strip() for name, value in options.items() if value.strip()}
        return cls(
            face=_face(given.get("face", "best")),
            box=_box(given),
            pads=_sides(given, "pads", cls.pads),
            keep=_choice(given, "no_face", ("fail", "keep")) == "keep",
            exact=_choice(given, "detection", ("fast", "exact")) == "exact",
            resize_factor=_number(given, "resize_factor", 1, 16, default=1),
            rotate=_switch(given, "rotate"),
            crop=_crop(given),
            max_height=_number(given, "max_height", 64, 16_384, default=0),
        )


def _face(text: str) -> str | int | tuple[int, int]:
    parts = text.replace(",", " ").split()
    if text.lower() in ORDERS:
        return text.lower()
    if not all(part.isdecimal() for part in parts) or len(parts) not in (1, 2):
        raise _expected("face", f"{', '.join(ORDERS)}, a number from the left, or a point x,y", text)
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _sides(given: Mapping[str, str], name: str, default: Sides) -> Sides:
    if name not in given:
        return default
    try:
        top, bottom, left, right = map(int, given[name].replace(",", " ").split())
    except ValueError:
        raise _expected(name, "four whole numbers (top, bottom, left, right)", given[name]) from None
    return top, bottom, left, right


def _box(given: Mapping[str, str]) -> Sides | None:
    sides = _sides(given, "box", DETECTED)
    top, bottom, left, right = sides
    if sides == DETECTED:
        return None
    if min(sides) < 0 or bottom <= top or right <= left:
        raise _expected("box", "top,bottom,left,right with top < bottom and left < right", given["box"])
    return sides


def _crop(given: Mapping[str, str]) -> Sides:
    sides = top, bottom, left, right = _sides(given, "crop", View.crop)
    if min(top, left) < 0 or min(sides) < -1 or 0 <= bottom <= top or 0 <= right <= left:
        raise _expected("crop", "top,bottom,left,right, where -1 is the bottom or right edge", given["crop"])
    return sides


def _number(given: Mapping[str, str], name: str, low: int, high: int, default: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise _expected(name, f"a whole number from {low} to {high}", text)
    return int(text)


def _choice(given: Mapping[str, str], name: str, values: tuple[str, ...]) -> str:
    text = given.get(name, values[0]).lower()
    if text not in values:
        raise _expected(name, " or ".join(values), text)
    return text


def _switch(given: Mapping[str, str], name: str) -> bool:
    return _choice(given, name, (*_FALSE, *_TRUE)) in _TRUE


def _expected(name: str, what: str, got: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: expected {what}; got {got!r}")
