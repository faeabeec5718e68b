"""Stills: any picture that people send, as upright 8-bit BGR."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from . import intake
from .errors import InvalidField

Picture = NDArray[np.uint8]  # [H,W,3] BGR

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # each read by Pillow itself, none by a helper program
STILL_FPS = Fraction(25)
WHITE = (255, 255, 255, 255)
# EXIF's orientations to what turns a picture upright; 1 is upright already
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Still:
    """A picture that is shown for as long as the speech lasts: its size, and the frame rate of the result."""

    picture: Picture
    fps: Fraction = STILL_FPS

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return self.picture.shape[1]

    @property
    def height(self) -> int:
        """Rows."""
        return self.picture.shape[0]


def read(path: Path) -> Picture:
    """Decode a picture strictly, turn it upright, lay transparent ones over white: UINT8 [H,W,3] BGR.

    Raises:
        InvalidField: `face_file` is empty, not a picture, damaged or too large.
    """
    intake.refuse_empty(intake.FACE, path)
    try:
        with Image.open(path, formats=FORMATS) as picture:
            intake.refuse_large(intake.FACE, *picture.size)
            picture.load()
            upright = _rgb(_turned(picture))
    except UnidentifiedImageError as error:
        raise InvalidField(intake.FACE, "not a picture that can be read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidField(intake.FACE, intake.TOO_LARGE) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise on damaged data
        raise InvalidField(intake.FACE, "the picture is damaged or cut short") from error
    return np.ascontiguousarray(np.asarray(upright)[:, :, ::-1])


def _turned(picture: Image.Image) -> Image.Image:
    """Upright. Pillow's own `exif_transpose` writes the EXIF anew as well, and fails where a tag in it is odd."""
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF is no reason to refuse a picture that is whole
        return picture
    return picture if turn is None else picture.transpose(turn)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip instead of scale
        return Image.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, WHITE), over).convert("RGB")
    return picture.convert("RGB")
