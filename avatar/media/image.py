"""Stills: any picture that people send, as upright 8-bit BGR of a size that can be worked on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from lipsync.tensors import FACE_FILE

from .. import limits as intake
from ..errors import InvalidField
from ..limits import Limits
from ..options import STILL_FPS

Picture = NDArray[np.uint8]  # [H,W,3] BGR

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")  # each read by Pillow itself, none by another program
WHITE = (255, 255, 255)
NOT_A_PICTURE = "not a picture that can be read"
DAMAGED = "the picture is damaged or cut short"
# Pixels of the shorter side. Where there is less, the detector has no cell of its own for a face.
SMALLEST = 96
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
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # brands, as in an mp4's first box
_AVIF = {b"avif", b"avis"}


@dataclass(frozen=True)
class Still:
    """A picture that is shown for as long as the speech lasts: its size, and the frame rate of the result."""

    picture: Picture
    fps: Fraction = STILL_FPS
    aspect: str = ""  # its pixels are square

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return self.picture.shape[1]

    @property
    def height(self) -> int:
        """Rows."""
        return self.picture.shape[0]


def is_picture(path: Path) -> bool:
    """Whether the file begins as a picture does, whatever its name; GIF counts as one."""
    head = _head(path)
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or _brand(head) in (_HEIF | _AVIF)


def is_gif(path: Path) -> bool:
    """Whether it is a GIF, which may be meant as a picture or as a video."""
    return _head(path).startswith(b"GIF8")


def read(path: Path, limits: Limits = intake.LIMITS, under: tuple[int, int, int] = WHITE) -> Picture:
    """Decode a picture strictly, of several the first: upright, sRGB, of a size that can be worked on.

    Args:
        path: the file.
        limits: larger pictures than may be worked on are scaled down, larger ones than may be sent refused.
        under: the colour, RGB, that transparent pictures are laid over.

    Returns:
        UINT8 [H,W,3] BGR.

    Raises:
        InvalidField: `face_file` is empty, not a picture, damaged or too large.
    """
    intake.check_not_empty(FACE_FILE, path)
    with _one_reason(limits):
        brand = _brand(_head(path))
        with _heif(path, limits) if brand in _HEIF else Image.open(path, formats=FORMATS) as picture:
            _refuse(picture, limits)
            width, height = intake.fit_within(picture.width, picture.height, limits.max_work_pixels)
            if (width, height) != picture.size:
                picture.draft("RGB", (width, height))  # a JPEG is then decoded at a half, a quarter or an eighth
            picture.load()
            rgb = _rgb(_turned(picture), under)
    return _sized(np.ascontiguousarray(np.asarray(rgb)[:, :, ::-1]), limits)


@contextmanager
def _one_reason(limits: Limits) -> Iterator[None]:
    """Pillow's plugins raise all kinds of things on data that somebody made up; the caller gets one of few reasons."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage that Pillow can live with, and of sizes, which we limit
            yield
    except InvalidField:
        raise
    except UnidentifiedImageError as error:
        raise InvalidField(FACE_FILE, NOT_A_PICTURE) from error
    except Image.DecompressionBombError as error:
        raise InvalidField(FACE_FILE, limits.too_large) from error
    except (Exception, MemoryError) as error:
        raise InvalidField(FACE_FILE, DAMAGED) from error


def _refuse(picture: Image.Image, limits: Limits) -> None:
    """Before a pixel is decoded."""
    width, height = picture.size
    wide, high = intake.fit_within(width, height, limits.max_work_pixels)
    if width * height > limits.max_pixels or max(wide, high) > intake.MAX_SIDE:
        raise InvalidField(FACE_FILE, limits.too_large)


def _heif(path: Path, limits: Limits) -> Image.Image:
    """A HEIC picture, by pi-heif, which turns it upright itself."""
    try:
        from pi_heif import open_heif
    except ImportError as error:
        raise InvalidField(FACE_FILE, "HEIC pictures cannot be read here; send a JPEG") from error
    heif = open_heif(path, convert_hdr_to_8bit=True)
    if heif.size[0] * heif.size[1] > limits.max_pixels:
        raise InvalidField(FACE_FILE, limits.too_large)
    picture: Image.Image = heif.to_pillow()
    picture.info.pop("exif", None)  # its orientation is done with
    return picture


def _turned(picture: Image.Image) -> Image.Image:
    """Upright. Pillow's own `exif_transpose` writes the EXIF anew as well, and fails where a tag in it is odd."""
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF is no reason to refuse a picture that is whole
        return picture
    if turn is None:
        return picture
    turned = picture.transpose(turn)
    turned.info = picture.info
    return turned


def _rgb(picture: Image.Image, under: tuple[int, int, int]) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep(picture)
    profile = picture.info.get("icc_profile")
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        over = Image.alpha_composite(Image.new("RGBA", over.size, (*under, 255)), over)
        return _srgb(over.convert("RGB"), profile)
    if picture.mode == "CMYK" and profile:
        return _srgb(picture, profile)
    return _srgb(picture.convert("RGB"), profile)


def _from_deep(picture: Image.Image) -> Image.Image:
    """More than 8 bits a pixel, which Pillow would clip instead of scale: 16-bit integers, or floats up to 1."""
    deep = np.nan_to_num(np.asarray(picture).astype(np.float64))
    if picture.mode == "F":
        deep = deep * 65535 if deep.max(initial=0) <= 1 else deep * 257
    gray = (deep.clip(0, 65535).astype(np.uint32) >> 8).astype(np.uint8)
    return Image.fromarray(gray).convert("RGB")


def _srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours as sRGB has them. A profile that is damaged, or that belongs to another kind of picture, is left out."""
    if not profile:
        return picture.convert("RGB")
    try:
        embedded = ImageCms.ImageCmsProfile(BytesIO(profile))
        if _is_srgb(embedded):
            return picture.convert("RGB")
        converted = ImageCms.profileToProfile(picture, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture.convert("RGB")
    return converted or picture.convert("RGB")


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """The usual one: to convert by it would shift levels by rounding alone."""
    return "srgb" in (ImageCms.getProfileDescription(profile) or "").lower()


def _sized(picture: Picture, limits: Limits) -> Picture:
    """Scaled down where it is more than may be worked on, and up where a face could not be seen."""
    height, width = picture.shape[:2]
    size = intake.fit_within(width, height, limits.max_work_pixels)
    if size != (width, height):
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    factor = SMALLEST / min(width, height)
    size = round(width * factor), round(height * factor)
    if factor > 1 and max(size) <= intake.MAX_SIDE and size[0] * size[1] <= limits.max_work_pixels:
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    return picture


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _brand(head: bytes) -> bytes:
    return head[8:12] if head[4:8] == b"ftyp" else b""
