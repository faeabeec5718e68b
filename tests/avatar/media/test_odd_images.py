"""Images as they are found in practice: with other brands, cut short, after a line break, cut out."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avatar.errors import InvalidField
from avatar.media.image import CUT_SHORT, load_image, load_layers
from avatar.media.image_type import brands, is_image, read_head
from tests.support.media import Frames, moving_square

SAMPLES = Path(__file__).parents[1] / "samples"
IMAGE = moving_square(1, 160, 480)[0]


def encoded(kind: str, image: Frames = IMAGE, **options: object) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(buffer, kind, **options)
    return buffer.getvalue()


def written(folder: Path, data: bytes) -> Path:
    (folder / "face").write_bytes(data)
    return folder / "face"


@pytest.mark.parametrize("major", [b"mif1", b"miaf", b"msf1", b"heic", b"MiHB"])
def test_an_avif_of_any_major_brand_is_decoded(tmp_path: Path, major: bytes) -> None:
    data = bytearray(encoded("AVIF", quality=95))
    data[8:12] = major  # the box keeps its size: the offsets in the file stay right
    path = written(tmp_path, bytes(data))
    assert is_image(path)
    assert np.abs(load_image(path).astype(int) - IMAGE).mean() < 8


@pytest.mark.parametrize("major", [b"mif1", b"heix", b"avif", b"mif2"])
def test_a_heic_of_any_major_brand_is_decoded(tmp_path: Path, major: bytes) -> None:
    data = bytearray((SAMPLES / "square.heic").read_bytes())
    data[8:12] = major
    path = written(tmp_path, bytes(data))
    assert is_image(path)
    assert np.abs(load_image(path).astype(int) - moving_square(1)[0]).mean() < 5


def test_the_brands_of_an_iso_file_are_listed_and_a_movie_is_no_image(tmp_path: Path) -> None:
    box = b"ftypmp42\0\0\0\0isommif1heic"
    movie = (len(box) + 4).to_bytes(4, "big") + box
    assert brands(movie) == [b"mp42", b"isom", b"mif1", b"heic"]
    assert brands(b"RIFF....WAVE") == []
    assert not is_image(written(tmp_path, movie + bytes(100)))


@pytest.mark.parametrize("missing", [1, 2, 3, 8])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_last_bytes_is_decoded(tmp_path: Path, missing: int, progressive: bool) -> None:
    whole = encoded("JPEG", quality=95, progressive=progressive)
    loaded = load_layers(written(tmp_path, whole[:-missing]))
    if missing <= 2:  # only the mark of the end: every pixel is there
        np.testing.assert_array_equal(loaded.image, load_image(written(tmp_path, whole)))
    assert np.abs(loaded.image[:440].astype(int) - IMAGE[:440]).mean() < 3
    assert loaded.notes == (CUT_SHORT,)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_jpeg_of_which_more_is_missing_is_rejected(tmp_path: Path, share: float) -> None:
    whole = encoded("JPEG", quality=95)
    with pytest.raises(InvalidField, match="damaged or truncated"):
        load_image(written(tmp_path, whole[: int(len(whole) * share)]))


@pytest.mark.parametrize("prefix", [b"\n", b"\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n", b"  \n\n"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_an_image_after_a_line_break_or_byte_order_mark_is_decoded(tmp_path: Path, kind: str, prefix: bytes) -> None:
    whole = encoded(kind)
    expected = load_image(written(tmp_path, whole))
    path = written(tmp_path, prefix + whole)
    assert is_image(path)
    assert read_head(path)[1] == len(prefix)
    np.testing.assert_array_equal(load_image(path), expected)


def test_a_prefix_is_skipped_only_before_an_image(tmp_path: Path) -> None:
    for data in (b"\n\nRIFF....WAVE", b"\n" * 100 + encoded("JPEG"), b"\r\n"):
        path = written(tmp_path, data)
        assert not is_image(path)
        assert read_head(path)[1] == 0


def rgba(*, transparent_rows: int) -> bytes:
    pixels = np.dstack((IMAGE[:, :, ::-1], np.full(IMAGE.shape[:2], 255, np.uint8)))
    pixels[:transparent_rows] = 0
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_layers_of_a_cut_out_are_loaded(tmp_path: Path) -> None:
    loaded = load_layers(written(tmp_path, rgba(transparent_rows=100)), matte=(0, 128, 255))
    assert loaded.is_cutout
    assert loaded.alpha is not None
    assert loaded.own is not None
    assert (loaded.alpha[:100] == 0).all()
    assert (loaded.alpha[100:] == 255).all()
    assert (loaded.image[:100] == (255, 128, 0)).all()
    assert (loaded.own[:100] == 0).all()
    np.testing.assert_array_equal(loaded.own[100:], IMAGE[100:])


def test_an_image_with_few_transparent_pixels_or_none_is_no_cut_out(tmp_path: Path) -> None:
    assert not load_layers(written(tmp_path, rgba(transparent_rows=4))).is_cutout
    opaque = load_layers(written(tmp_path, rgba(transparent_rows=0)))
    assert (opaque.alpha, opaque.own, opaque.is_cutout) == (None, None, False)
