"""Load any image that callers send, as upright 8-bit BGR of a size that the models can process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, ImageCms, UnidentifiedImageError
from PIL import Image as PilImage

from lipsync.arrays import Image
from lipsync.tensors import FACE_FILE

from ..errors import InvalidField
from ..faults import machine_fault
from ..limits import LIMITS, MAX_SIDE, Limits, check_not_empty, fit_within
from ..options import STILL_FPS
from .image_type import AVIF_BRANDS, IMAGE_BRANDS, JPEG_MARK, brands, read_head

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
Reader: TypeAlias = "Callable[[Path | bytes, Limits], PilImage.Image]"
Alpha: TypeAlias = NDArray[np.uint8]  # [H,W], the opacity of each pixel
CUTOUT_SHARE = 0.01  # share of transparent pixels from which on an image is a cut-out, and not one with round corners
# A JPEG whose end is missing is read as browsers and OpenCV do, if at most this share of its rows is missing.
MISSING_SHARE = 1 / 16
CUT_SHORT = "face_file: the end of the JPEG is missing; its last rows may be wrong"
_END_OF_JPEG, _FILLER = b"\xff\xd9", b"\x55" * 4096


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image.

    Attributes:
        image: UINT8 [H,W,3] BGR, over the matte.
        own: UINT8 [H,W,3] BGR, the colors without the matte; None if the image is opaque.
        alpha: UINT8 [H,W]; None if the image is opaque.
        notes: what was done with an unusual file.
    """

    image: Image
    own: Image | None = None
    alpha: Alpha | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_cutout(self) -> bool:
        """Return whether its alpha channel cuts out the person."""
        return self.alpha is not None and float((self.alpha < 128).mean()) >= CUTOUT_SHARE

    def map(self, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> LoadedImage:
        """Return the image with `change` applied to its pixels and to its alpha channel."""
        own, alpha = (None if each is None else change(each) for each in (self.own, self.alpha))
        return LoadedImage(change(self.image), own, alpha, self.notes)


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


def load_image(path: Path, limits: Limits = LIMITS, matte: tuple[int, int, int] = WHITE) -> Image:
    """Decode an image that may not be transparent; see `load_layers`."""
    return load_layers(path, limits, matte).image


def load_layers(path: Path, limits: Limits = LIMITS, matte: tuple[int, int, int] = WHITE) -> LoadedImage:
    """Decode an image strictly (of several images in a file, the first): upright, sRGB, of a size to work on.

    Args:
        path: the file.
        limits: images over `max_work_pixels` are scaled down, images over `max_pixels` rejected.
        matte: the RGB color that transparent images are composited over.

    Raises:
        InvalidField: `face_file` is empty, not an image, damaged or too large.
        MachineFault: the machine fails, and not the file.
    """
    check_not_empty(FACE_FILE, path)
    with _translate_errors(limits):
        head, start = read_head(path)
        data = path.read_bytes()[start:] if start else path
        loaded = _load_with_any(_readers(head), data, limits, matte)
    return loaded.map(partial(_fit_working_size, limits=limits))


def _readers(head: bytes) -> tuple[Reader, ...]:
    """Return the readers of a file, in the order in which they are tried; brands need not name the codec."""
    found = brands(head)
    if head.startswith(JPEG_MARK):
        return (_open_pillow, _open_cut_jpeg)
    if AVIF_BRANDS.isdisjoint(found) and not IMAGE_BRANDS.isdisjoint(found):
        return (_open_heif, _open_pillow)
    return (_open_pillow, _open_as_avif, _open_heif) if found else (_open_pillow,)


def _load_with_any(
    readers: Sequence[Reader], data: Path | bytes, limits: Limits, matte: tuple[int, int, int]
) -> LoadedImage:
    """Return what the first reader gives that does not refuse the file. Raises what the first one raised."""
    first_error: Exception | None = None
    for reader in readers:
        try:
            with reader(data, limits) as image:
                return _load(image, limits, matte)
        except InvalidField:
            raise  # too large
        except Exception as error:  # Pillow's plugins raise errors of any class
            if machine_fault(error):
                raise
            first_error = first_error or error
    raise first_error or UnidentifiedImageError(NOT_AN_IMAGE)


def _load(image: PilImage.Image, limits: Limits, matte: tuple[int, int, int]) -> LoadedImage:
    _check_size(image, limits)
    width, height = fit_within(image.width, image.height, limits.max_work_pixels)
    if (width, height) != image.size:
        image.draft("RGB", (width, height))  # decodes a JPEG at a half, a quarter or an eighth of its size
    image.load()
    notes = (CUT_SHORT,) if image.info.get(CUT_SHORT) else ()
    upright = _apply_orientation(image)
    flat = _bgr(_to_rgb(upright, matte))
    if not upright.has_transparency_data:
        return LoadedImage(flat, notes=notes)
    layers = upright.convert("RGBA")
    alpha = np.asarray(layers.getchannel("A"), np.uint8)
    own = _to_srgb(layers.convert("RGB"), upright.info.get("icc_profile"))
    if alpha.min(initial=255) == 255:
        return LoadedImage(flat, notes=notes)
    return LoadedImage(flat, _bgr(own), alpha, notes)


def _bgr(image: PilImage.Image) -> Image:
    return np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


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


def _open_pillow(data: Path | bytes, limits: Limits) -> PilImage.Image:
    return PilImage.open(BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS)


def _open_as_avif(data: Path | bytes, limits: Limits) -> PilImage.Image:
    """Open an AVIF that has the major brand of another format, which Pillow refuses."""
    whole = data if isinstance(data, bytes) else data.read_bytes()
    return _open_pillow(whole[:8] + b"avif" + whole[12:], limits)


def _open_cut_jpeg(data: Path | bytes, limits: Limits) -> PilImage.Image:
    """Open a JPEG whose end is missing. Raises ValueError if too many of its rows are missing.

    The missing rows are those that depend on what is put in the place of the missing end.
    """
    whole = (data if isinstance(data, bytes) else data.read_bytes()).removesuffix(b"\xff")  # half of the end's mark
    image, other = (_open_pillow(whole + end, limits) for end in (_END_OF_JPEG, _FILLER + _END_OF_JPEG))
    _check_size(image, limits)
    with image, other:
        differs = np.asarray(image.convert("L")) != np.asarray(other.convert("L"))
    missing = differs.any(axis=1).argmax() if differs.any() else len(differs)
    if len(differs) - missing > len(differs) * MISSING_SHARE:
        raise ValueError("too much of the JPEG is missing")
    repaired = _open_pillow(whole + _END_OF_JPEG, limits)
    repaired.info[CUT_SHORT] = True
    return repaired


def _open_heif(data: Path | bytes, limits: Limits) -> PilImage.Image:
    """Open a HEIC image with pi-heif, which applies the orientation itself."""
    try:
        from pi_heif import open_heif
    except ImportError as error:
        raise InvalidField(FACE_FILE, "HEIC images are not supported by this installation; send a JPEG") from error
    heif = open_heif(BytesIO(data) if isinstance(data, bytes) else data, convert_hdr_to_8bit=True)
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


def _fit_working_size(image: NDArray[np.uint8], limits: Limits) -> NDArray[np.uint8]:
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
