"""Replaced backgrounds: any color, an image, transparency; hard and soft edges; stills and videos."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from avatar.errors import InvalidField
from avatar.events import RenderResult
from avatar.options import EdgeMode, NoFace, Options
from avatar.request import Background, Color
from avatar.testing import FakeInference
from tests.support.media import Frames, ffmpeg, file_of, read_video, request, run, tone, write_video, write_wav

BLUE = Color((10, 20, 240))


def people(count: int) -> Frames:
    """Return 160×120 frames: a red person, 60 pixels wide, moves to the right in front of a green wall."""
    frames = np.full((count, 120, 160, 3), (40, 160, 40), np.uint8)
    for n, frame in enumerate(frames):
        frame[20:, 20 + 2 * n : 80 + 2 * n] = (40, 40, 220)
    return frames


async def replaced(
    folder: Path,
    background: Background | Color,
    options: Options | None = None,
    background_image: Frames | None = None,
    *,
    still: bool = True,
) -> RenderResult:
    face = folder / "face.png"
    if still:
        cv2.imwrite(str(face), people(1)[0])
    else:
        face = write_video(folder / "face.mp4", people(12))
    job = request(folder, face, write_wav(folder / "speech.wav", tone(0.5)), still=still)
    if background_image is not None:
        cv2.imwrite(str(folder / "backdrop.png"), background_image)
        job = replace(job, background_file=folder / "backdrop.png")
    box = Options(box=(30, 70, 30, 70), no_face=NoFace.KEEP)
    job = replace(job, background=background, options=replace(options or Options(), box=box.box))
    return await run(job, FakeInference())


def near(pixels: Frames, rgb: tuple[int, int, int], within: int = 6) -> bool:
    return bool(np.abs(np.median(pixels.reshape(-1, 3), axis=0) - rgb[::-1]).max() <= within)


async def test_any_color_can_be_the_background(tmp_path: Path) -> None:
    frame = read_video(file_of(await replaced(tmp_path, BLUE)))[5]
    assert near(frame[5:15, 100:150], BLUE.rgb)
    assert near(frame[80:110, 30:70], (220, 40, 40))


async def test_an_image_as_background_keeps_its_proportions(tmp_path: Path) -> None:
    image = np.zeros((100, 300, 3), np.uint8)  # thirds in red, blue and red; its sides are cut off
    image[:, :100] = image[:, 200:] = (0, 0, 255)
    image[:, 100:200] = (255, 0, 0)
    frame = read_video(file_of(await replaced(tmp_path, Background.GREEN, background_image=image)))[5]
    assert frame.shape == (120, 160, 3)
    assert near(frame[5:15, 40:120], (0, 0, 255), 12)
    assert near(frame[5:15, 145:158], (255, 0, 0), 12)


@pytest.mark.parametrize("still", [True, False])
async def test_a_transparent_background_makes_a_webm_with_an_alpha_channel(tmp_path: Path, still: bool) -> None:
    result = await replaced(tmp_path, Background.TRANSPARENT, Options(background_video=True), still=still)
    assert file_of(result).name == "avatar.webm"
    raw = ffmpeg("-c:v", "libvpx-vp9", "-i", str(result.path), "-f", "rawvideo", "-pix_fmt", "bgra", "pipe:1")
    frames = np.frombuffer(raw, np.uint8).reshape(-1, 120, 160, 4)
    assert len(frames) == result.frames == 13
    moved = 0 if still else 2 * 5
    assert frames[5, 80:110, 32 + moved : 68 + moved, 3].min() > 240
    assert frames[5, 2:12, 100:150, 3].max() < 15
    assert near(frames[5, 80:110, 32 + moved : 68 + moved, :3], (220, 40, 40), 12)
    about = ffmpeg("-i", str(result.path), "-c", "copy", "-f", "framecrc", "pipe:1").decode()
    assert "#codec_id 0: vp9" in about
    assert "#codec_id 1: opus" in about


async def test_the_background_of_a_video_is_replaced_in_every_frame_if_the_option_says_so(tmp_path: Path) -> None:
    frames = read_video(file_of(await replaced(tmp_path, BLUE, Options(background_video=True), still=False)))
    for n, frame in enumerate(frames[:12]):
        assert near(frame[5:15], BLUE.rgb)
        assert near(frame[80:110, 32 + 2 * n : 68 + 2 * n], (220, 40, 40), 10)


async def test_the_background_of_a_video_stays_if_the_option_does_not_say_so(tmp_path: Path) -> None:
    frames = read_video(file_of(await replaced(tmp_path, BLUE, still=False)))
    assert near(frames[5][5:15], (40, 160, 40))


async def test_a_soft_edge_is_softer_and_shows_nothing_of_the_old_background(tmp_path: Path) -> None:
    shown = {}
    for edge in EdgeMode:
        frame = read_video(file_of(await replaced(tmp_path, Background.WHITE, Options(edge=edge))))[5].astype(int)
        shown[edge] = frame[90]
        assert (frame[85:95, 72:90, 1] - frame[85:95, 72:90, 2]).max() < 25  # no green
    steps = {edge: np.abs(np.diff(row[70:90, 1])).max() for edge, row in shown.items()}
    assert steps[EdgeMode.SOFT] < 0.8 * steps[EdgeMode.HARD]


async def test_a_background_file_that_is_no_image_is_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "backdrop").write_text("no image")
    face = tmp_path / "face.png"
    cv2.imwrite(str(face), people(1)[0])
    job = request(tmp_path, face, write_wav(tmp_path / "speech.wav", tone(0.5)), still=True)
    with pytest.raises(InvalidField, match="background_file: not an image that can be read"):
        await run(replace(job, background_file=tmp_path / "backdrop"), FakeInference())
