import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from avatar.errors import InvalidField
from avatar.limits import LIMITS, Limits
from avatar.media.image import load_image
from avatar.media.image_type import is_gif, is_image
from tests.support.media import moving_square

IMAGE = moving_square(1, 161, 107)[0]  # BGR
SAMPLES = Path(__file__).parents[1] / "samples"


def saved(path: Path, image: Image.Image, kind: str, **options: object) -> Path:
    image.save(path, kind, **options)
    return path


def rgb() -> Image.Image:
    return Image.fromarray(IMAGE[:, :, ::-1])


def rejected(path: Path) -> str:
    with pytest.raises(InvalidField) as error:
        load_image(path)
    assert error.value.field == "face_file"
    return error.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_an_image_is_decoded_to_bgr(tmp_path: Path, kind: str) -> None:
    image = load_image(saved(tmp_path / "face", rgb(), kind))
    np.testing.assert_array_equal(image, IMAGE)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


def test_a_jpeg_is_decoded_as_by_opencv(tmp_path: Path) -> None:
    path = saved(tmp_path / "face.jpg", rgb(), "JPEG", quality=90)
    difference = np.abs(load_image(path).astype(int) - cv2.imread(str(path)).astype(int))
    assert difference.max() <= 2


@pytest.mark.parametrize("kind", ["WEBP", "GIF"])
def test_lossy_formats_are_decoded(tmp_path: Path, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = load_image(saved(tmp_path / "face", rgb(), kind, **options))
    assert np.abs(image.astype(int) - IMAGE).mean() < 12


def test_an_image_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # recorded sideways: viewers rotate it by 90° clockwise
    path = saved(tmp_path / "face", rgb().transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    np.testing.assert_array_equal(load_image(path), IMAGE)


def test_transparent_pixels_are_composited_over_white(tmp_path: Path) -> None:
    pixels = np.dstack((IMAGE[:, :, ::-1], np.full(IMAGE.shape[:2], 255, np.uint8)))
    pixels[:20, :, 3] = 0
    image = load_image(saved(tmp_path / "face", Image.fromarray(pixels), "PNG"))
    assert (image[:20] == 255).all()
    np.testing.assert_array_equal(image[20:], IMAGE[20:])


def test_a_transparent_palette_color_is_composited_over_white(tmp_path: Path) -> None:
    indices = np.zeros((200, 300), np.uint8)
    indices[100:] = 1
    palette = Image.fromarray(indices, "L").convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    image = load_image(saved(tmp_path / "face", palette, "PNG", transparency=0))
    assert (image[:100] == 255).all()
    assert (image[100:] == (50, 100, 200)).all()


def test_a_16_bit_gray_image_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.tile(np.linspace(0, 65535, 128).astype(np.uint16), (100, 1))
    image = load_image(saved(tmp_path / "face", Image.fromarray(shades), "PNG"))
    np.testing.assert_array_equal(image[:, :, 0], shades >> 8)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "LA"])
def test_images_of_every_mode_are_decoded(tmp_path: Path, mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert load_image(saved(tmp_path / "face", rgb().convert(mode), kind)).shape == IMAGE.shape


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
        (lambda path: path.write_text("Hello, world!\n" * 100), "not an image"),
        (_svg, "not an image"),
        (_eps, "not an image"),
        (lambda path: path.write_bytes(_jpeg()[: len(_jpeg()) // 2]), "damaged or truncated"),
        (lambda path: path.write_bytes(_jpeg()[:-200]), "damaged or truncated"),
        (lambda path: path.write_bytes(_jpeg()[:10]), "damaged or truncated"),
    ],
    ids=["empty", "text", "svg", "eps", "half a jpeg", "a jpeg without its end", "the first bytes of a jpeg"],
)
def test_an_incomplete_or_invalid_image_is_rejected(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    make(tmp_path / "face")
    assert reason in rejected(tmp_path / "face")


def test_a_truncated_png_is_rejected(tmp_path: Path) -> None:
    path = saved(tmp_path / "face", rgb(), "PNG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "damaged or truncated" in rejected(path)


@pytest.mark.parametrize("size", [(10_001, 10_000), (16_385, 2)])
def test_an_image_that_is_too_large_is_rejected_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path / "face", Image.new("1", size), "PNG")
    assert (
        rejected(path) == LIMITS.too_large == "the image is too large: at most 100 megapixels and 16384 pixels per side"
    )


def _png_of(width: int, height: int) -> bytes:
    """Return a PNG that claims this size and has almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [12_000, 60_000, 2**31 - 1])
def test_a_decompression_bomb_is_rejected_without_allocating_memory(tmp_path: Path, side: int) -> None:
    (tmp_path / "face").write_bytes(_png_of(side, side))
    code = (
        "import resource, sys; from pathlib import Path; from avatar.errors import InvalidField\n"
        "from avatar.media.image import load_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: load_image(Path(sys.argv[1]))\n"
        "except InvalidField as error: print(error.reason)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 30_000)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "face")]
    stdout = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=True).stdout
    reason, is_small = stdout.splitlines()
    assert "too large" in reason
    assert is_small == "True"


def test_an_image_over_the_working_size_is_scaled_down(tmp_path: Path) -> None:
    large = Image.fromarray(moving_square(1, 1600, 1200)[0][:, :, ::-1])
    small = Limits(max_work_pixels=160 * 120)
    for kind, options in (("PNG", {}), ("JPEG", {"quality": 95})):
        image = load_image(saved(tmp_path / "face", large, kind, **options), small)
        assert image.shape == (120, 160, 3)
        assert np.abs(image.astype(int) - moving_square(1, 1600, 1200)[0][5::10, 5::10]).mean() < 6


def test_a_tiny_image_is_enlarged(tmp_path: Path) -> None:
    tiny = moving_square(1, 160, 120)[0][::10, ::10]
    image = load_image(saved(tmp_path / "face", Image.fromarray(tiny[:, :, ::-1]), "PNG"))
    assert image.shape == (96, 128, 3)
    assert load_image(saved(tmp_path / "face", Image.new("RGB", (1, 1), (10, 20, 30)), "PNG")).shape == (96, 96, 3)
    assert load_image(saved(tmp_path / "face", Image.new("RGB", (2, 16_000)), "PNG")).shape == (16_000, 2, 3)


def test_only_the_first_of_several_images_is_decoded(tmp_path: Path) -> None:
    others = [Image.new("RGB", (161, 107), (n, 0, 0)) for n in range(40)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        path = saved(tmp_path / "face", rgb(), kind, save_all=True, append_images=others, **options)
        assert np.abs(load_image(path).astype(int) - IMAGE).mean() < 12


def test_heic_is_decoded() -> None:
    image = load_image(SAMPLES / "square.heic")
    assert image.shape == (120, 160, 3)
    assert np.abs(image.astype(int) - moving_square(1)[0]).mean() < 5


def test_damaged_heic_is_rejected(tmp_path: Path) -> None:
    whole = (SAMPLES / "square.heic").read_bytes()
    for cut in (60, 200, len(whole) // 2, len(whole) - 20):
        (tmp_path / "face").write_bytes(whole[:cut])
        assert "damaged or truncated" in rejected(tmp_path / "face")


def test_avif_is_decoded(tmp_path: Path) -> None:
    image = load_image(saved(tmp_path / "face", rgb(), "AVIF", quality=95))
    assert np.abs(image.astype(int) - IMAGE).mean() < 8


def test_transparent_pixels_are_composited_over_the_matte(tmp_path: Path) -> None:
    pixels = np.dstack((IMAGE[:, :, ::-1], np.full(IMAGE.shape[:2], 255, np.uint8)))
    pixels[:20, :, 3], pixels[20:40, :, 3] = 0, 128
    image = load_image(saved(tmp_path / "face", Image.fromarray(pixels), "PNG"), matte=(0, 128, 255))
    assert (image[:20] == (255, 128, 0)).all()
    half = (IMAGE[20:40].astype(float) + np.array((255, 128, 0))) / 2
    assert np.abs(image[20:40] - half).max() <= 2


def test_16_bits_per_channel_are_scaled(tmp_path: Path) -> None:
    deep = IMAGE.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "face.png"), deep)
    np.testing.assert_array_equal(load_image(tmp_path / "face.png"), IMAGE)


def test_a_cmyk_jpeg_keeps_its_colors(tmp_path: Path) -> None:
    image = load_image(saved(tmp_path / "face", rgb().convert("CMYK"), "JPEG", quality=95))
    assert np.abs(image.astype(int) - IMAGE).mean() < 4


def test_invalid_color_profiles_are_ignored(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    same = saved(tmp_path / "same.png", rgb(), "PNG", icc_profile=srgb.tobytes())
    np.testing.assert_array_equal(load_image(same), IMAGE)
    for profile in (lab.tobytes(), b"no profile at all"):  # one for another image mode, and an invalid one
        np.testing.assert_array_equal(load_image(saved(tmp_path / "odd.png", rgb(), "PNG", icc_profile=profile)), IMAGE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_an_image_is_recognized_by_its_content(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "face.mp4", rgb(), kind)
    assert is_image(path)
    assert is_gif(path) == (kind == "GIF")


def test_other_files_are_not_taken_for_images(tmp_path: Path) -> None:
    for name, data in (("a.png", b""), ("b.jpg", b"\x00\x00\x00\x20ftypisom" + bytes(20)), ("c.gif", b"RIFF....WAVE")):
        (tmp_path / name).write_bytes(data)
        assert not is_image(tmp_path / name)
    assert is_image(SAMPLES / "square.heic")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIC"])
def test_any_damage_results_in_an_image_or_a_reason(tmp_path: Path, kind: str) -> None:
    rng = np.random.RandomState(len(kind))
    path = SAMPLES / "square.heic" if kind == "HEIC" else saved(tmp_path / "whole", rgb(), kind)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for n in range(60):
        data = whole.copy()
        at = rng.randint(4, len(data) if n % 2 else min(200, len(data)), 1 + n % 9)
        data[at] = rng.randint(0, 256, len(at))
        (tmp_path / "face").write_bytes(data[: rng.randint(8, len(data)) if n % 5 == 0 else None].tobytes())
        try:
            assert load_image(tmp_path / "face").ndim == 3
        except InvalidField as error:
            assert error.field == "face_file"
            assert error.reason.startswith(("not an image", "the image is "))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_as_by_pillow(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "face", rgb(), kind, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[:, :, ::-1]
    np.testing.assert_array_equal(load_image(path), expected)


def test_an_image_with_invalid_exif_is_accepted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0128] = 6, 2  # sideways; the unit of the resolution, a SHORT
    path = saved(tmp_path / "face", rgb(), "JPEG", exif=exif)
    # the unit becomes text: such a tag can be read, but not written again
    unit, text = b"\x01\x28\x00\x03", b"\x01\x28\x00\x02"
    assert path.read_bytes().count(unit) == 1
    path.write_bytes(path.read_bytes().replace(unit, text))
    assert load_image(path).shape == (161, 107, 3)
