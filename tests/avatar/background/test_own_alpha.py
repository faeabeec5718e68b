"""Images and videos that bring their own alpha channel, and when a background is checked."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from avatar.errors import InvalidField
from avatar.events import RenderResult
from avatar.form.parse import Upload, parse
from avatar.options import ExtendMode, NoFace, Options
from avatar.request import Background, Color
from avatar.testing import FakeInference
from tests.support.media import Frames, ffmpeg, file_of, read_video, request, run, tone, write_video, write_wav

RED, BLUE = (40, 40, 220), (240, 20, 10)  # BGR
BOX = Options(box=(30, 70, 100, 140), no_face=NoFace.KEEP)
VP9 = [
    "-c:v",
    "libvpx-vp9",
    "-deadline",
    "realtime",
    "-cpu-used",
    "8",
    "-pix_fmt",
    "yuva420p",
    "-auto-alt-ref",
    "0",
    "-f",
    "webm",
]


def cut_out(count: int = 1) -> Frames:
    """Return BGRA frames 160×120: green and transparent on the left, opaque red on the right, from a moving edge on."""
    frames = np.zeros((count, 120, 160, 4), np.uint8)
    for n, frame in enumerate(frames):
        frame[:, : 40 + 2 * n] = (40, 160, 40, 0)
        frame[:, 40 + 2 * n :] = (*RED, 255)
    return frames


async def rendered(
    folder: Path,
    background: Background | Color,
    *,
    video: list[str] | None = None,
    backdrop: bool = False,
    options: Options = BOX,
) -> tuple[RenderResult, FakeInference]:
    """Render an avatar that is cut out, a PNG or a video."""
    face, frames = folder / "face", cut_out(1 if video is None else 10)
    if video is None:
        Image.fromarray(frames[0][:, :, [2, 1, 0, 3]]).save(face, "PNG")
    else:
        raw = ["-f", "rawvideo", "-pixel_format", "bgra", "-video_size", "160x120", "-framerate", "25"]
        ffmpeg(*raw, "-i", "pipe:0", *video, "-y", str(face), data=frames.tobytes())
    job = request(folder, face, write_wav(folder / "speech.wav", tone(0.8)), still=video is None)
    if backdrop:
        cv2.imwrite(str(folder / "backdrop.png"), np.full((120, 160, 3), BLUE, np.uint8))
        job = replace(job, background_file=folder / "backdrop.png")
    models = FakeInference()
    return await run(replace(job, background=background, options=options), models), models


def near(pixels: Frames, bgr: tuple[int, int, int], within: int = 8) -> bool:
    return bool(np.abs(np.median(pixels.reshape(-1, 3), axis=0) - bgr).max() <= within)


def alpha_of(path: Path) -> Frames:
    """Return the alpha channel of a WebM, UINT8 [n,H,W]."""
    raw = ffmpeg("-c:v", "libvpx-vp9", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "bgra", "pipe:1")
    return np.frombuffer(raw, np.uint8).reshape(-1, 120, 160, 4)[..., 3]


async def test_the_alpha_channel_of_a_cut_out_is_the_mask_of_a_color(tmp_path: Path) -> None:
    result, models = await rendered(tmp_path, Background.BLUE)
    frame = read_video(file_of(result))[5]
    assert near(frame[:, 5:35], (255, 128, 0))
    assert near(frame[80:, 50:], RED)
    assert not models.calls["segment"]


async def test_the_alpha_channel_of_a_cut_out_is_the_mask_of_an_image(tmp_path: Path) -> None:
    result, models = await rendered(tmp_path, Background.FROM_INPUT, backdrop=True)
    frame = read_video(file_of(result))[5]
    assert near(frame[:, 5:35], BLUE)
    assert near(frame[80:, 50:], RED)
    assert not models.calls["segment"]


async def test_the_alpha_channel_of_a_cut_out_is_kept(tmp_path: Path) -> None:
    result, models = await rendered(tmp_path, Background.TRANSPARENT)
    alpha = alpha_of(file_of(result))
    assert alpha[:, :, 5:35].max() < 10
    assert alpha[:, :, 45:].min() > 245
    assert not models.calls["segment"]


async def test_a_cut_out_is_over_white_without_a_background(tmp_path: Path) -> None:
    result, _ = await rendered(tmp_path, Background.FROM_INPUT)
    assert near(read_video(file_of(result))[5][:, 5:35], (255, 255, 255))


@pytest.mark.parametrize(
    ("background", "shown"), [(Background.FROM_INPUT, (255, 255, 255)), (Background.BLUE, (255, 128, 0))]
)
async def test_a_video_with_alpha_is_over_white_or_the_chosen_color(
    tmp_path: Path, background: Background, shown: tuple[int, int, int]
) -> None:
    for options in (BOX, replace(BOX, background_video=True)):
        result, models = await rendered(tmp_path, background, video=VP9, options=options)
        frames = read_video(file_of(result))
        assert near(frames[5][:, 5:35], shown)
        assert near(frames[5][80:, 70:], RED, within=12)
        assert not models.calls["segment"]
        assert result.notes == ("face_file: its transparent parts are laid over the background color, or white",)


async def test_the_alpha_channel_of_a_video_is_kept_where_transparency_is_chosen(tmp_path: Path) -> None:
    options = replace(BOX, background_video=True, extend=ExtendMode.BOUNCE)
    result, models = await rendered(tmp_path, Background.TRANSPARENT, video=VP9, options=options)
    assert (result.container, result.frames, result.notes) == ("webm", 20, ())
    assert not models.calls["segment"]
    alpha = alpha_of(file_of(result))
    edges = [int((frame[60] < 128).sum()) for frame in alpha]
    expected = [40 + 2 * n for n in (*range(10), *range(8, -1, -1), 1)]
    np.testing.assert_allclose(edges, expected, atol=2)


async def test_the_alpha_channel_of_a_video_is_the_mask_of_an_image(tmp_path: Path) -> None:
    options = replace(BOX, background_video=True)
    result, _ = await rendered(tmp_path, Background.FROM_INPUT, video=VP9, backdrop=True, options=options)
    frames = read_video(file_of(result))
    assert near(frames[5][:, 5:35], BLUE, within=12)
    assert near(frames[5][80:, 70:], RED, within=12)


async def test_a_video_for_which_transparency_is_not_chosen_in_full_says_so(tmp_path: Path) -> None:
    face = write_video(tmp_path / "face", np.ascontiguousarray(cut_out(5)[..., :3]), extra=["-f", "mp4"])
    job = request(tmp_path, face, write_wav(tmp_path / "speech.wav", tone(0.2)), still=False)
    result = await run(replace(job, background=Background.TRANSPARENT, options=BOX), FakeInference())
    assert result.container == "mp4"
    assert result.notes == ("background: Transparent applies to images; for a video, send background_video=true too",)


def webp(folder: Path) -> Path:
    buffer = BytesIO()
    Image.fromarray(np.full((120, 160, 3), 200, np.uint8)).save(buffer, "WEBP")
    (folder / "face").write_bytes(buffer.getvalue())
    return folder / "face"


@pytest.mark.parametrize("kind", ["png", "webp", "heic", '"png"', "image/png", "mp4", ""])
async def test_a_background_that_does_not_exist_is_rejected_with_every_still(tmp_path: Path, kind: str) -> None:
    face, speech = webp(tmp_path), write_wav(tmp_path / "speech.wav", tone(0.2))
    form = {"face_file": face, "audio_file": speech}
    files = {name: Upload(path, path.stat().st_size) for name, path in form.items()}
    with pytest.raises(InvalidField) as error:
        job = parse({**files, "avatarFileType": kind or "-", "background": "Gren"}, tmp_path, "test")
        await run(replace(job, options=BOX), FakeInference())
    assert str(error.value).startswith("background: 'Gren' is not one of From Input, White")


async def test_a_background_that_does_not_exist_is_ignored_with_a_video(tmp_path: Path) -> None:
    face = write_video(tmp_path / "face", np.ascontiguousarray(cut_out(5)[..., :3]), extra=["-f", "mp4"])
    speech = write_wav(tmp_path / "speech.wav", tone(0.2))
    files = {name: Upload(path, 9) for name, path in (("face_file", face), ("audio_file", speech))}
    job = parse({**files, "avatarFileType": "mp4", "background": "Gren"}, tmp_path, "test")
    assert (await run(replace(job, options=BOX), FakeInference())).frames == 5
