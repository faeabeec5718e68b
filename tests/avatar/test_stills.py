import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from avatar_media import moving_square
from PIL import Image, ImageOps

from avatar import intake
from avatar.errors import InvalidField
from avatar.pictures import read

PICTURE = moving_square(1, 61, 47)[0]  # BGR


def saved(path: Path, picture: Image.Image, kind: str, **options: object) -> Path:
    picture.save(path, kind, **options)
    return path


def rgb() -> Image.Image:
    return Image.fromarray(PICTURE[:, :, ::-1])


def refused(path: Path) -> str:
    with pytest.raises(InvalidField) as error:
        read(path)
    assert error.value.field == "face_file"
    return error.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_picture_is_read_as_bgr(tmp_path: Path, kind: str) -> None:
    picture = read(saved(tmp_path / "face", rgb(), kind))
    np.testing.assert_array_equal(picture, PICTURE)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous


def test_a_jpeg_is_read_as_the_original_read_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "face.jpg", rgb(), "JPEG", quality=90)
    difference = np.abs(read(path).astype(int) - cv2.imread(str(path)).astype(int))
    assert difference.max() <= 2


@pytest.mark.parametrize("kind", ["WEBP", "GIF"])
def test_other_kinds_are_read_too(tmp_path: Path, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read(saved(tmp_path / "face", rgb(), kind, **options))
    assert np.abs(picture.astype(int) - PICTURE).mean() < 12


def test_a_picture_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to show
    path = saved(tmp_path / "face", rgb().transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    np.testing.assert_array_equal(read(path), PICTURE)


def test_transparent_pixels_lie_over_white(tmp_path: Path) -> None:
    pixels = np.dstack((PICTURE[:, :, ::-1], np.full(PICTURE.shape[:2], 255, np.uint8)))
    pixels[:20, :, 3] = 0
    picture = read(saved(tmp_path / "face", Image.fromarray(pixels), "PNG"))
    assert (picture[:20] == 255).all()
    np.testing.assert_array_equal(picture[20:], PICTURE[20:])


def test_a_palette_with_a_transparent_colour_lies_over_white(tmp_path: Path) -> None:
    indices = np.zeros((20, 30), np.uint8)
    indices[10:] = 1
    palette = Image.fromarray(indices, "L").convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    picture = read(saved(tmp_path / "face", palette, "PNG", transparency=0))
    assert (picture[:10] == 255).all()
    assert (picture[10:] == (50, 100, 200)).all()


def test_a_gray_picture_of_16_bits_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (32, 1))
    picture = read(saved(tmp_path / "face", Image.fromarray(shades), "PNG"))
    np.testing.assert_array_equal(picture[:, :, 0], shades >> 8)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "LA"])
def test_pictures_of_every_mode_are_read(tmp_path: Path, mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert read(saved(tmp_path / "face", rgb().convert(mode), kind)).shape == PICTURE.shape


def _jpeg() -> bytes:
    data = io.BytesIO()
    rgb().resize((320, 240)).save(data, "JPEG")
    return data.getvalue()


def _svg(path: Path) -> None:
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/hostname"/></svg>')


def _eps(path: Path) -> None:
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("Hello, world!\n" * 100), "not a picture"),
        (_svg, "not a picture"),
        (_eps, "not a picture"),
        (lambda path: path.write_bytes(_jpeg()[: len(_jpeg()) // 2]), "damaged or cut short"),
        (lambda path: path.write_bytes(_jpeg()[:-200]), "damaged or cut short"),
        (lambda path: path.write_bytes(_jpeg()[:10]), "damaged or cut short"),
    ],
    ids=["empty", "text", "svg", "eps", "half a jpeg", "a jpeg without its end", "the first bytes of a jpeg"],
)
def test_what_is_no_whole_picture_is_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    make(tmp_path / "face")
    assert reason in refused(tmp_path / "face")


def test_a_truncated_png_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "face", rgb(), "PNG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "damaged or cut short" in refused(path)


@pytest.mark.parametrize("size", [(4100, 4100), (16_385, 2), (20_000, 20_000)])
def test_a_picture_too_large_to_work_on_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path / "face", Image.new("1", size), "PNG")
    assert refused(path) == intake.TOO_LARGE


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "face", rgb(), kind, exif=exif)
    with Image.open(path) as picture:
        want = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))[:, :, ::-1]
    np.testing.assert_array_equal(read(path), want)


def test_odd_exif_is_no_reason_to_refuse_a_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0128] = 6, 2  # sideways; the unit of the resolution, a SHORT
    path = saved(tmp_path / "face", rgb(), "JPEG", exif=exif)
    # the unit becomes text: such a tag can be read, but not written again
    unit, text = b"\x01\x28\x00\x03", b"\x01\x28\x00\x02"
    assert path.read_bytes().count(unit) == 1
    path.write_bytes(path.read_bytes().replace(unit, text))
    assert read(path).shape == (61, 47, 3)
