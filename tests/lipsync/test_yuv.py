"""Planes of YUV are those of exact arithmetic and of ffmpeg's accurate conversion, to one level."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lipsync.arrays import Image
from lipsync.errors import InvalidInput
from lipsync.yuv import Planes, put, split, to_yuv420
from tests.support.media import ffmpeg

SAMPLES = Path(__file__).parents[2] / "samples"
GOLDEN = Path(__file__).parents[1] / "golden"
RANDOM = np.random.default_rng(7)
# ffmpeg's conversion before this module: `bicubic` also looks at the rows above and below a sample of chroma.
FILTER = "scale=flags={}+accurate_rnd:out_color_matrix=smpte170m:out_range=tv,format=yuv420p"


def sample(name: str) -> Image:
    image = cv2.imread(str(SAMPLES / name))
    assert image is not None
    height, width = (side // 2 * 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[:height, :width], np.uint8)


def enlarged(height: int, width: int) -> Image:
    """Return random colors that run into each other."""
    return np.asarray(cv2.resize(noise(height, width), (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)


def noise(height: int, width: int) -> Image:
    return RANDOM.integers(0, 256, (height, width, 3), np.uint8)


def golden() -> Image:
    with np.load(GOLDEN / "clip.npz") as data:
        frames = next(data[name] for name in data.files if data[name].ndim == 4 and data[name].shape[3] == 3)
    frame = frames[0].astype(np.uint8)
    return np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])


IMAGES = {
    "face": sample("face.png"),
    "portrait": sample("portrait.png"),
    "golden": golden(),
    "gradients": enlarged(15, 20),
    "noise": noise(240, 320),
    "corners of the color cube": (noise(240, 320) // 128 * 255).astype(np.uint8),
    "squares": np.repeat(np.repeat(noise(30, 40), 8, axis=0), 8, axis=1),
}


def by_ffmpeg(image: Image, flags: str) -> Planes:
    height, width = image.shape[:2]
    raw = ["-f", "rawvideo", "-pixel_format", "bgr24", "-video_size", f"{width}x{height}", "-i", "pipe:0"]
    data = ffmpeg(*raw, "-vf", FILTER.format(flags), "-f", "rawvideo", "pipe:1", data=image.tobytes())
    return np.frombuffer(data, np.uint8).reshape(-1, width)


def difference(planes: Planes, other: Planes) -> np.ndarray:
    return np.abs(planes.astype(int) - other)


@pytest.mark.parametrize("name", IMAGES)
def test_every_sample_is_within_a_level_of_ffmpegs_accurate_area_means(name: str) -> None:
    assert difference(to_yuv420(IMAGES[name]), by_ffmpeg(IMAGES[name], "area")).max() <= 1


@pytest.mark.parametrize("name", IMAGES)
def test_luma_is_within_a_level_of_ffmpegs_accurate_bicubic_and_so_is_chroma_without_hard_edges(name: str) -> None:
    image = IMAGES[name]
    height = image.shape[0]
    differences = difference(to_yuv420(image), by_ffmpeg(image, "bicubic"))
    assert differences[:height].max() <= 1
    if name in ("face", "gradients"):
        assert differences.max() <= 1
    if name == "portrait":  # the edge of the person: ffmpeg's bicubic sharpens it, by a few levels
        assert (differences[height:] > 1).mean() < 0.005


@pytest.mark.parametrize("name", IMAGES)
def test_every_sample_is_within_a_level_of_exact_arithmetic(name: str) -> None:
    image = IMAGES[name]
    height, width = image.shape[:2]
    blue, green, red = np.moveaxis(image.astype(float), 2, 0)
    luma = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    blue, green, red = (c.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for c in (blue, green, red))
    exact = (
        luma,
        128 + (112 * blue - 74.203 * green - 37.797 * red) / 255,
        128 + (112 * red - 93.786 * green - 18.214 * blue) / 255,
    )
    for plane, values in zip(split(to_yuv420(image), height), exact, strict=True):
        assert np.abs(plane - values).max() < 1


@pytest.mark.parametrize("size", [(2, 2), (2, 4), (6, 2), (10, 14), (34, 66)])
def test_small_images_have_planes_of_their_size(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), (52, 52, 209), np.uint8)
    luma, blue, red = split(to_yuv420(image), size[0])
    assert luma.shape == size
    assert blue.shape == red.shape == (size[0] // 2, size[1] // 2)
    assert [np.unique(plane).tolist() for plane in (luma, blue, red)] == [[101], [105], [197]]


def test_a_changed_rectangle_gives_the_planes_of_the_changed_image() -> None:
    image = noise(60, 90)
    whole = to_yuv420(image)
    for _ in range(200):
        left, top = (int(RANDOM.integers(0, side // 2)) * 2 for side in (90, 60))
        width, height = (int(RANDOM.integers(1, (side - at) // 2 + 1)) * 2 for side, at in ((90, left), (60, top)))
        part = noise(height, width)
        image[top : top + height, left : left + width] = part
        put(whole, 60, left, top, part)
        np.testing.assert_array_equal(whole, to_yuv420(image))


def test_opacity_after_the_planes_is_left_alone() -> None:
    image, opacity = noise(8, 6), noise(8, 6)[:, :, 0]
    planes = np.vstack((to_yuv420(np.zeros_like(image)), opacity))
    put(planes, 8, 0, 0, image)
    np.testing.assert_array_equal(planes, np.vstack((to_yuv420(image), opacity)))


@pytest.mark.parametrize(
    "image", [np.zeros((3, 4, 3), np.uint8), np.zeros((4, 3, 3), np.uint8), np.zeros((0, 2, 3), np.uint8)]
)
def test_odd_sides_are_rejected(image: Image) -> None:
    with pytest.raises(InvalidInput, match="even sides"):
        to_yuv420(image)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_rejected(image: Image) -> None:
    with pytest.raises(InvalidInput, match="UINT8"):
        to_yuv420(image)
