"""Load any image that callers send, as upright 8-bit BGR of a size that the models can process."""

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
from PIL import ExifTags, ImageCms, UnidentifiedImageError
from PIL import Image as PilImage

from lipsync.arrays import Image
from lipsync.tensors import FACE_FILE

from ..errors import InvalidField
from ..faults import machine_fault
from ..limits import LIMITS, MAX_SIDE, Limits, check_not_empty, fit_within
from ..options import STILL_FPS

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")  # each decoded by Pillow itself, without a program
WHITE = (255, 255, 255)
NOT_AN_IMAGE = "not an image that can be read"
DAMAGED = "the image is damaged or truncated"
# Pixels of the shorter side. In a smaller image a face is smaller than the detector can find; it is enlarged.
MIN_SIDE = 96
# EXIF orientations, and what turns each upright; orientation 1 is upright.
_TRANSPOSES = {
    2: PilImage.Transpose.FLIP_LEFT_RIGHT,
    3: PilImage.Transpose.ROTATE_180,
    4: PilImage.Transpose.FLIP_TOP_BOTTOM,
    5: PilImage.Transpose.TRANSPOSE,
    6: PilImage.Transpose.ROTATE_270,
    7: PilImage.Transpose.TRANSVERSE,
    8: PilImage.Transpose.ROTATE_90,
}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # brands, as in an MP4's first box
_AVIF = {b"avif", b"avis"}


@dataclass(frozen=True)
class StillImage:
    """An image that is shown for the length of the audio.

    Attributes:
        image: UINT8 [H,W,3] BGR.
        fps: the frame rate of the result.
        aspect: always empty: the pixels are square.
    """

    image: Image
    fps: Fraction = STILL_FPS
    aspect: str = ""

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return self.image.shape[1]

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return self.image.shape[0]


def is_image(path: Path) -> bool:
    """Return whether the file starts as an image file does, whatever its name. GIF counts as an image."""
    head = _read_head(path)
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or _brand(head) in (_HEIF | _AVIF)


def is_gif(path: Path) -> bool:
    """Return whether the file is a GIF, which may be meant as an image or as a video."""
    return _read_head(path).startswith(b"GIF8")


def load_image(path: Path, limits: Limits = LIMITS, matte: tuple[int, int, int] = WHITE) -> Image:
    """Decode an image strictly (of several images in a file, the first): upright, sRGB, of a size to work on.

    Args:
        path: the file.
        limits: images over `max_work_pixels` are scaled down, images over `max_pixels` rejected.
        matte: the RGB color that transparent images are composited over.

    Returns:
        UINT8 [H,W,3] BGR.

    Raises:
        InvalidField: `face_file` is empty, not an image, damaged or too large.
        MachineFault: the machine fails, and not the file.
    """
    check_not_empty(FACE_FILE, path)
    with _translate_errors(limits):
        brand = _brand(_read_head(path))
        with _open_heif(path, limits) if brand in _HEIF else PilImage.open(path, formats=FORMATS) as image:
            _check_size(image, limits)
            width, height = fit_within(image.width, image.height, limits.max_work_pixels)
            if (width, height) != image.size:
                image.draft("RGB", (width, height))  # decodes a JPEG at a half, a quarter or an eighth of its size
            image.load()
            rgb = _to_rgb(_apply_orientation(image), matte)
    return _fit_working_size(np.ascontiguousarray(np.asarray(rgb)[:, :, ::-1]), limits)


@contextmanager
def _translate_errors(limits: Limits) -> Iterator[None]:
    """Translate errors to InvalidField. Pillow's plugins raise errors of any class on malformed files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damage that Pillow can repair, and about sizes, which we check
            yield
    except InvalidField:
        raise
    except UnidentifiedImageError as error:
        raise InvalidField(FACE_FILE, NOT_AN_IMAGE) from error
    except PilImage.DecompressionBombError as error:
        raise InvalidField(FACE_FILE, limits.too_large) from error
    except (Exception, MemoryError) as error:
        if fault := machine_fault(error):
            raise fault from error
        raise InvalidField(FACE_FILE, DAMAGED) from error


def _check_size(image: PilImage.Image, limits: Limits) -> None:
    """Raise InvalidField for an image that is too large, before a pixel is decoded."""
    width, height = image.size
    working_size = fit_within(width, height, limits.max_work_pixels)
    if width * height > limits.max_pixels or max(working_size) > MAX_SIDE:
        raise InvalidField(FACE_FILE, limits.too_large)


def _open_heif(path: Path, limits: Limits) -> PilImage.Image:
    """Open a HEIC image with pi-heif, which applies the orientation itself."""
    try:
        from pi_heif import open_heif
    except ImportError as error:
        raise InvalidField(FACE_FILE, "HEIC images are not supported by this installation; send a JPEG") from error
    heif = open_heif(path, convert_hdr_to_8bit=True)
    if heif.size[0] * heif.size[1] > limits.max_pixels:
        raise InvalidField(FACE_FILE, limits.too_large)
    image: PilImage.Image = heif.to_pillow()
    image.info.pop("exif", None)  # its orientation is applied already
    return image


def _apply_orientation(image: PilImage.Image) -> PilImage.Image:
    """Turn the image upright. Pillow's `exif_transpose` also rewrites the EXIF data, and fails on invalid tags."""
    try:
        transpose = _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an image is not rejected for damaged EXIF data
        return image
    if transpose is None:
        return image
    upright = image.transpose(transpose)
    upright.info = image.info
    return upright


def _to_rgb(image: PilImage.Image, matte: tuple[int, int, int]) -> PilImage.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bits(image)
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        over = PilImage.alpha_composite(PilImage.new("RGBA", over.size, (*matte, 255)), over)
        return _to_srgb(over.convert("RGB"), profile)
    if image.mode == "CMYK" and profile:
        return _to_srgb(image, profile)
    return _to_srgb(image.convert("RGB"), profile)


def _to_8_bits(image: PilImage.Image) -> PilImage.Image:
    """Scale 16-bit integers, or floats up to 1, to 8 bits; Pillow itself would clip them."""
    deep = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode == "F":
        deep = deep * 65535 if deep.max(initial=0) <= 1 else deep * 257
    gray = (deep.clip(0, 65535).astype(np.uint32) >> 8).astype(np.uint8)
    return PilImage.fromarray(gray).convert("RGB")


def _to_srgb(image: PilImage.Image, profile: bytes | None) -> PilImage.Image:
    """Convert colors to sRGB. A color profile that is damaged, or made for another image mode, is ignored."""
    if not profile:
        return image.convert("RGB")
    try:
        embedded = ImageCms.ImageCmsProfile(BytesIO(profile))
        if _is_srgb(embedded):
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert("RGB")
    return converted or image.convert("RGB")


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Return whether the profile is sRGB itself: a conversion would only add rounding errors."""
    return "srgb" in (ImageCms.getProfileDescription(profile) or "").lower()


def _fit_working_size(image: Image, limits: Limits) -> Image:
    """Scale an image down if it exceeds `max_work_pixels`, and up if it is too small for the detector."""
    height, width = image.shape[:2]
    size = fit_within(width, height, limits.max_work_pixels)
    if size != (width, height):
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    factor = MIN_SIDE / min(width, height)
    size = round(width * factor), round(height * factor)
    if factor > 1 and max(size) <= MAX_SIDE and size[0] * size[1] <= limits.max_work_pixels:
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    return image


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _brand(head: bytes) -> bytes:
    return head[8:12] if head[4:8] == b"ftyp" else b""
