"""The options of the service's form. The service's documentation says what they mean; here they only become inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TypedDict

import numpy as np

from ._messages import InputTensor, file_tensor, text_tensor
from ._schema import BACKGROUND_FILE, FACE_TYPE

File = bytes | str | os.PathLike[str]  # the content of a file, or its path
# Text is sent as it is, True as `true`, 25.0 as `25`, (0, 20, 0, 0) as `0,20,0,0`; None is not sent.
Value = str | int | float | Fraction | tuple[int, ...] | None


class CommonOptions(TypedDict, total=False):
    """Options of both streaming models."""

    avatarFileType: Value
    background: Value
    background_file: File | None
    model: Value
    face: Value
    no_face: Value
    detection: Value
    blend: Value
    pads: Value
    smooth: Value
    box: Value
    length: Value
    fps: Value
    resize_factor: Value
    rotate: Value
    crop: Value
    max_height: Value
    background_edge: Value


class RenderOptions(CommonOptions, total=False):
    """Options of a whole video."""

    quality: Value
    background_video: Value


class LiveOptions(CommonOptions, total=False):
    """Options of a live session. `format` is the format of the frames: `bgr`, `jpeg`, or `mouth` for their box only."""

    format: Value


RENDER_NAMES = frozenset(RenderOptions.__optional_keys__)
LIVE_NAMES = frozenset(LiveOptions.__optional_keys__)


def texts(given: Mapping[str, object], names: frozenset[str]) -> dict[str, str]:
    """Return options by name as the form's text, without `background_file`, which is a file.

    Raises:
        TypeError: a name that is not among `names`, or a value of a type that cannot become text.
    """
    if unknown := sorted(set(given) - names):
        raise TypeError(f"unknown option {', '.join(unknown)}; the options are {', '.join(sorted(names))}")
    chosen = {name: value for name, value in given.items() if value is not None and name != BACKGROUND_FILE}
    return {name: text(name, value) for name, value in chosen.items()}


def text(name: str, value: object) -> str:
    """Return one option's value as text.

    Raises:
        TypeError: it is of a type that cannot become text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer, Fraction)):
        return str(value)
    if isinstance(value, (float, np.floating)):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    if isinstance(value, (tuple, list)) and all(isinstance(each, (int, np.integer)) for each in value):
        return ",".join(str(int(each)) for each in value)
    raise TypeError(f"{name}: str, int, float, bool or a tuple of int expected, got {value!r}")


def with_type(chosen: Mapping[str, str], face: File) -> dict[str, str]:
    """Return the options with `avatarFileType`, as the form's callers send it: the extension of the face's path."""
    suffix = "" if isinstance(face, bytes) else Path(face).suffix.removeprefix(".")
    return ({FACE_TYPE: suffix} if suffix else {}) | dict(chosen)


def read(file: File) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: it cannot be read.
    """
    return file if isinstance(file, bytes) else Path(file).read_bytes()


def inputs(chosen: Mapping[str, str], background_file: File | None) -> list[InputTensor]:
    """Return the inputs of a request for options as text, and for the file of the background where there is one.

    Raises:
        OSError: the file cannot be read.
    """
    files = [] if background_file is None else [file_tensor(BACKGROUND_FILE, read(background_file))]
    return [*files, *(text_tensor(*each) for each in chosen.items())]
