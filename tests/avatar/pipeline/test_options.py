"""The effect of the options on the result."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.errors import InvalidField
from avatar.events import RenderResult
from avatar.options import Blend, ExtendMode, Generator, NoFace, Options, Quality, TrimMode
from avatar.testing import FakeInference
from lipsync.arrays import Floats, Image, Images
from tests.support.media import (
    RATE,
    Frames,
    ffmpeg,
    file_of,
    find_square,
    frame_rate,
    moving_square,
    read_sound,
    read_video,
    request,
    run,
    tone,
    write_still,
    write_video,
    write_wav,
)


async def video(
    folder: Path, frames: Frames, options: Options, seconds: float = 1.0, models: FakeInference | None = None
) -> RenderResult:
    face = write_video(folder / "face.mp4", frames)
    job = request(folder, face, write_wav(folder / "speech.wav", tone(seconds)), still=False)
    return await run(replace(job, options=options), models or FakeInference(find_square))


async def still(folder: Path, options: Options, models: FakeInference | None = None) -> RenderResult:
    face = write_still(folder / "face.png", 161, 121)
    job = request(folder, face, write_wav(folder / "speech.wav", tone(1.0)), still=True)
    return await run(replace(job, options=options), models or FakeInference(find_square))


async def test_the_rest_of_a_longer_video_is_kept_with_silence(tmp_path: Path) -> None:
    result = await video(tmp_path, moving_square(60), Options(trim=TrimMode.KEEP))
    assert result.frames == len(read_video(file_of(result))) == 60
    assert result.duration == 2.4
    sound = read_sound(file_of(result))
    assert abs(len(sound) / RATE - 2.4) < 0.1
    assert np.abs(sound[:RATE]).max() > 0.2
    assert np.abs(sound[RATE + 2000 :]).max() < 0.01
    away = np.abs(read_video(file_of(result))[59].astype(int) - moving_square(60)[59]).mean(axis=2)
    assert np.median(away) <= 2


async def test_keeping_the_rest_of_a_shorter_video_changes_nothing(tmp_path: Path) -> None:
    result = await video(tmp_path, moving_square(10), Options(trim=TrimMode.KEEP))
    assert (result.frames, result.duration) == (25, 1.0)


async def test_the_mouth_is_closed_after_the_audio(tmp_path: Path) -> None:
    result = await video(
        tmp_path, moving_square(60), Options(trim=TrimMode.KEEP), models=FakeInference(find_square, darken=True)
    )
    frames = read_video(file_of(result))
    assert mouth_of(frames[50], moving_square(60)[50]).mean() > 240  # white again: silence darkens nothing


def mouth_of(shown: Image, drawn: Image) -> Image:
    """Return the part of a frame where the mouth of the drawn square is."""
    square = find_square(drawn)
    assert square
    return shown[int(square[3]) - 8 : int(square[3]) - 2, int(square[0]) + 4 : int(square[2]) - 4]


@pytest.mark.parametrize("extend", list(ExtendMode))
async def test_a_shorter_video_is_extended_to_the_audio(tmp_path: Path, extend: ExtendMode) -> None:
    assert (await video(tmp_path, moving_square(7), Options(extend=extend))).frames == 25


async def test_frames_without_a_face_are_unchanged_and_counted(tmp_path: Path) -> None:
    frames = moving_square(60)
    frames[20:50] //= 2
    models = FakeInference(find_square, darken=True)
    result = await video(tmp_path, frames, Options(no_face=NoFace.KEEP), 2.4, models)
    assert (result.frames, result.without_face) == (60, 30)
    shown = read_video(file_of(result))
    assert np.abs(shown[35].astype(int) - frames[35]).mean() < 2
    assert mouth_of(frames[10], frames[10]).mean() == 255
    assert mouth_of(shown[10], frames[10]).mean() < 250  # darkened by the speech
    assert models.window_count == 30


async def test_the_selected_generator_is_called(tmp_path: Path) -> None:
    for generator in Generator:
        models = FakeInference()
        await still(tmp_path, Options(model=generator), models)
        assert models.generators == {generator}


async def test_a_feathered_mouth_leaves_the_upper_face_unchanged(tmp_path: Path) -> None:
    class Speaking(FakeInference):
        """A darker face with an open mouth."""

        async def wav2lip(self, faces: Images, windows: Floats, generator: Generator) -> Images:
            mouths = await super().wav2lip(faces, windows, generator) - np.minimum(30, faces.min())
            mouths[:, 62:80, 32:64] = 0
            return mouths

    whole = Speaking(lambda image: (40.0, 20.0, 120.0, 100.0))
    difference = {}
    for blend in Blend:
        result = await still(tmp_path, Options(blend=blend, pads=(0, 0, 0, 0)), whole)
        frame = read_video(file_of(result))[12].astype(int)
        difference[blend] = np.abs(frame[:121, :161] - moving_square(1, 161, 121)[0]).mean(axis=2)
    upper, mouth, edge = (
        (slice(22, 50), slice(42, 118)),
        (slice(75, 84), slice(70, 90)),
        (slice(97, 99), slice(60, 100)),
    )
    for blend, moved, changed in ((Blend.ORIGINAL, True, True), (Blend.FEATHER, True, False)):
        assert (difference[blend][mouth].mean() > 20) == moved
        assert (difference[blend][upper].mean() > 4) == (difference[blend][edge].mean() > 4) == changed


@pytest.mark.parametrize("fps", ["30", "24000/1001", "12.5"])
async def test_a_still_has_the_selected_frame_rate(tmp_path: Path, fps: str) -> None:
    result = await still(tmp_path, Options(fps=Fraction(fps)))
    assert frame_rate(file_of(result)) == float(Fraction(fps))
    assert result.frames == -(-Fraction(fps) // 1)


async def test_a_still_is_cropped_and_rotated_like_a_video(tmp_path: Path) -> None:
    result = await still(tmp_path, Options(rotate=True, crop=(0, 100, 0, -1), box=(0, 50, 0, 50)))
    assert read_video(file_of(result)).shape[1:3] == (100, 122)


async def test_a_crop_outside_the_image_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidField, match="crop: outside the 161x121 image"):
        await still(tmp_path, Options(crop=(130, 140, 0, -1)))


async def test_the_maximum_height_is_that_of_the_result(tmp_path: Path) -> None:
    result = await video(tmp_path, moving_square(5, 320, 240), Options(max_height=120))
    assert read_video(file_of(result)).shape[1:3] == (120, 160)


async def test_quality_levels_differ_in_size(tmp_path: Path) -> None:
    sizes = {}
    noisy = np.random.RandomState(0).randint(0, 80, (25, 120, 160, 3)).astype(np.uint8) + moving_square(25) // 2
    for quality in Quality:
        result = await video(tmp_path, noisy, Options(quality=quality, box=(10, 90, 10, 90)))
        sizes[quality] = file_of(result).stat().st_size
    assert sizes[Quality.SMALL] < sizes[Quality.STANDARD] < sizes[Quality.HIGH]


async def test_the_aspect_of_pixels_that_are_not_square_is_kept(tmp_path: Path) -> None:
    face = write_video(tmp_path / "face.mp4", moving_square(5), extra=["-vf", "setsar=4/3"])
    job = request(tmp_path, face, write_wav(tmp_path / "speech.wav", tone(0.5)), still=False)
    result = await run(job, FakeInference(find_square))
    about = ffmpeg("-i", str(file_of(result)), "-map", "0:v", "-c", "copy", "-f", "framecrc", "pipe:1").decode()
    assert "#sar 0: 4/3" in about


@pytest.mark.parametrize("named_a_still", [True, False])
async def test_the_content_decides_whether_a_file_is_an_image_or_a_video(tmp_path: Path, named_a_still: bool) -> None:
    speech = write_wav(tmp_path / "speech.wav", tone(0.5))
    image, video_file = write_still(tmp_path / "a.png"), write_video(tmp_path / "b.mp4", moving_square(20), "10")
    rates = []
    for face in (image, video_file):
        job = request(tmp_path, face, speech, still=named_a_still)
        rates.append((await run(job, FakeInference(find_square))).fps)
    assert rates == [25, 10]


@pytest.mark.parametrize(("named_a_still", "fps"), [(True, 25), (False, 10)])
async def test_the_caller_decides_whether_a_gif_is_an_image_or_a_video(
    tmp_path: Path, named_a_still: bool, fps: int
) -> None:
    ffmpeg("-i", str(write_video(tmp_path / "a.mp4", moving_square(10), "10")), "-y", str(tmp_path / "a.gif"))
    job = request(tmp_path, tmp_path / "a.gif", write_wav(tmp_path / "speech.wav", tone(0.5)), still=named_a_still)
    assert (await run(job, FakeInference())).fps == fps
