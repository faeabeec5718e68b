"""Parse the values of the form's options. Each function raises ValueError with a phrase that says what is expected."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from ..options import DEFAULTS, ExtendMode, FaceIndex, FaceOrder, FacePoint, FaceSelection, Sides, TrimMode

MAX_COORDINATE = 16_384  # pixels; a larger coordinate, pad or height makes no sense
MIN_HEIGHT = 64
MAX_RESIZE_FACTOR = 16
MAX_STILL_FPS = 120
MAX_FACE_INDEX = 15  # the detector returns at most sixteen faces per frame
MAX_ECHO = 40  # characters of an invalid value that its error repeats

_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def echo(text: str) -> str:
    """Return an invalid value as an error repeats it: quoted, escaped to ASCII, and shortened."""
    return ascii(text if len(text) <= MAX_ECHO else text[:MAX_ECHO] + "...")


def one_of(values: Iterable[str]) -> str:
    """Return the phrase `a, b or c`."""
    *most, last = values
    return f"{', '.join(most)} or {last}"


def parse_switch(text: str) -> bool:
    """Parse true, yes, on, 1, or their opposites."""
    if text.lower() not in _SWITCH:
        raise ValueError("true or false")
    return _SWITCH[text.lower()]


def parse_resize_factor(text: str) -> int:
    """Parse a whole number from 1 to MAX_RESIZE_FACTOR."""
    return _whole_number(text, 1, MAX_RESIZE_FACTOR)


def parse_max_height(text: str) -> int | None:
    """Parse a height in pixels."""
    return _whole_number(text, MIN_HEIGHT, MAX_COORDINATE)


def parse_pads(text: str) -> Sides:
    """Parse `top,bottom,left,right`; negative pads shrink the box."""
    return _sides(text, -MAX_COORDINATE)


def parse_crop(text: str) -> Sides:
    """Parse `top,bottom,left,right`, where bottom or right may be -1."""
    crop = top, bottom, left, right = _sides(text, -1)
    if min(top, left) < 0 or 0 <= bottom <= top or 0 <= right <= left:
        raise ValueError("a rectangle: top,bottom,left,right with top < bottom and left < right (or -1 for the end)")
    return crop


def parse_box(text: str) -> Sides | None:
    """Parse `top,bottom,left,right`; -1,-1,-1,-1 means None, as in the original tool."""
    box = top, bottom, left, right = _sides(text, -1)
    if box == (-1, -1, -1, -1):
        return None
    if min(box) < 0 or bottom <= top or right <= left:
        raise ValueError("a rectangle: top,bottom,left,right with top < bottom and left < right")
    return box


def parse_fps(text: str) -> Fraction:
    """Parse a frame rate such as 25, 29.97 or 30000/1001; 29.97 means 30000/1001, and 23.976 means 24000/1001."""
    try:
        if len(text) > MAX_ECHO or not set(text) <= set("0123456789./"):
            raise ValueError
        fps = Fraction(text)
        if not 1 <= fps <= MAX_STILL_FPS:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"1 to {MAX_STILL_FPS} frames per second, such as 25, 29.97 or 30000/1001") from None
    television_rate = Fraction(round(fps * Fraction(1001, 1000)) * 1000, 1001)
    is_near = fps.denominator != 1 and abs(fps - television_rate) < Fraction(1, 100)
    return television_rate if is_near else fps


def parse_face(text: str) -> FaceSelection:
    """Parse the name of an order, the index of a face, or a point `x,y`."""
    orders = {order.value: order for order in FaceOrder}
    try:
        if text.lower() in orders:
            return orders[text.lower()]
        numbers = [_whole_number(part, 0, MAX_COORDINATE) for part in text.replace(",", " ").split()]
        if len(numbers) == 2:
            return FacePoint(*numbers)
        (index,) = numbers
        if index > MAX_FACE_INDEX:
            raise ValueError
    except ValueError:
        others = f"a number from 0 to {MAX_FACE_INDEX}, or a point x,y"
        raise ValueError(f"{', '.join(orders)}, {others}") from None
    return FaceIndex(index)


def parse_length(text: str) -> tuple[ExtendMode, TrimMode]:
    """Parse one word for a shorter video, one word for a longer video, or both; a missing word means the default."""
    words = text.lower().replace(",", " ").split()
    extend = [mode for mode in ExtendMode if mode.value in words]
    trim = [mode for mode in TrimMode if mode.value in words]
    if len(extend) > 1 or len(trim) > 1 or len(extend) + len(trim) != len(words):
        extend_words, trim_words = one_of(mode.value for mode in ExtendMode), one_of(mode.value for mode in TrimMode)
        raise ValueError(f"one of {extend_words}, one of {trim_words}, or both separated by a comma")
    return (*extend, DEFAULTS.extend)[0], (*trim, DEFAULTS.trim)[0]


def _whole_number(text: str, low: int, high: int) -> int:
    digits = text.strip()
    # `int` alone would also accept underscores, and digits of all scripts
    if digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= 6 and low <= int(digits) <= high:
        return int(digits)
    raise ValueError(f"a whole number from {low} to {high}")


def _sides(text: str, low: int) -> Sides:
    try:
        top, bottom, left, right = (_whole_number(part, low, MAX_COORDINATE) for part in text.replace(",", " ").split())
    except ValueError:
        expected = f"four whole numbers (top, bottom, left, right) from {low} to {MAX_COORDINATE}"
        raise ValueError(expected) from None
    return top, bottom, left, right
