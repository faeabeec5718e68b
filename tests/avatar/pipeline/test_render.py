import asyncio
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from numpy.typing import NDArray

from avatar.errors import FaceNotFound, InvalidField
from avatar.events import RenderResult
from avatar.limits import Limits
from avatar.media import playback
from avatar.options import Detection, Options
from avatar.request import Background
from avatar.testing import Box, FakeInference, darkened
from lipsync.arrays import Image
from lipsync.boxes import pad, smooth
from lipsync.face_crop import crop, paste
from lipsync.mel import mel_spectrogram
from lipsync.mel_windows import mel_windows
from tests.support.media import (
    RATE,
    Frames,
    ffmpeg,
    file_of,
    find_square,
    frame_count,
    frame_rate,
    moving_square,
    names,
    other_tasks,
    read_sound,
    read_video,
    request,
    run,
    tone,
    write_still,
    write_video,
    write_wav,
)
from tests.support.recorded_mouths import Recorder

COLORS = [color for color in Background if color.rgb and color is not Background.GREEN]


def slow(*values: object) -> list[ParameterSet]:
    """Return cases that run the same code as others, for `make test-long`."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


ODD = 16_213  # samples; 1.0133125 s, a whole number of frames at no rate


def fixed_box(box: Box, image: Image) -> Box:
    return box


def speech(folder: Path, samples: int = ODD) -> Path:
    return write_wav(folder / "speech.wav", tone(samples / RATE))


async def still(
    folder: Path, models: FakeInference, samples: int = ODD, size: tuple[int, int] = (160, 120)
) -> RenderResult:
    job = request(folder, write_still(folder / "face.png", *size), speech(folder, samples), still=True)
    return await run(job, models)


async def video(
    folder: Path, models: FakeInference, frames: Frames, fps: str = "25", samples: int = ODD
) -> RenderResult:
    face = write_video(folder / "face.mp4", frames, fps)
    return await run(request(folder, face, speech(folder, samples), still=False), models)


def outside(frames: Frames, boxes: NDArray[np.int32], margin: int = 6) -> NDArray[np.bool_]:
    """Return which pixels [n,H,W] are not near their frame's box; the codec blurs its edge."""
    away = np.ones(frames.shape[:3], bool)
    for mask, (x1, y1, x2, y2) in zip(away, boxes, strict=True):
        mask[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin] = False
    return away


def true_boxes(frames: Frames) -> NDArray[np.int32]:
    """Return the padded and smoothed boxes of a whole clip, computed at once."""
    squares = np.array([find_square(frame) for frame in frames], np.int32)
    return smooth(pad(squares, frames.shape[2], frames.shape[1]))


@pytest.mark.parametrize("fps", ["24000/1001", "12.5", *slow("25", "30000/1001", "60000/1001")])
async def test_the_video_is_as_long_as_the_audio(tmp_path: Path, fps: str) -> None:
    result = await video(tmp_path, FakeInference(), moving_square(90), fps)
    assert result.frames == len(read_video(file_of(result))) == frame_count(ODD, Fraction(fps))
    assert result.fps == Fraction(fps)
    assert frame_rate(file_of(result)) == float(Fraction(fps))
    assert result.duration == ODD / RATE


async def test_a_result_with_too_many_frames_is_rejected_before_a_model_is_called(tmp_path: Path) -> None:
    models = FakeInference()
    face = write_video(tmp_path / "face.mp4", moving_square(5), "240")
    long = write_wav(tmp_path / "speech.wav", np.zeros(500, np.float32), rate=1)
    reason = "audio_file: too long for this frame rate: 120000 frames, at most 100000 are allowed"
    with pytest.raises(InvalidField, match=reason):
        job = request(tmp_path, face, long, still=False)
        await run(replace(job, limits=Limits(max_frames=100_000)), models)
    assert set(models.calls) <= {"model_info"}


@pytest.mark.parametrize("samples", [3201, 16_000, *slow(3200, 16_001)])
async def test_a_still_has_25_frames_per_second(tmp_path: Path, samples: int) -> None:
    result = await still(tmp_path, FakeInference(), samples)
    assert result.frames == len(read_video(file_of(result))) == frame_count(samples, Fraction(25))
    assert frame_rate(file_of(result)) == 25


async def test_the_result_is_in_the_folder_of_the_request(tmp_path: Path) -> None:
    result = await still(tmp_path, FakeInference())
    assert file_of(result).parent == tmp_path
    assert names(tmp_path) == {"face.png", "speech.wav", file_of(result).name}


async def test_a_still_is_detected_once(tmp_path: Path) -> None:
    models = FakeInference()
    result = await still(tmp_path, models, 3 * RATE)
    assert models.frame_count == 1
    assert models.window_count == result.frames == 75


async def test_a_video_shorter_than_the_speech_is_looped(tmp_path: Path) -> None:
    models = FakeInference(find_square)
    result = await video(tmp_path, models, moving_square(7))
    source = read_video(tmp_path / "face.mp4")
    boxes = true_boxes(source)
    frames = read_video(file_of(result))
    assert len(frames) == 26
    assert models.frame_count == 7
    order = np.arange(26) % 7
    away = outside(frames, boxes[order])
    assert np.abs(frames.astype(int) - source[order])[away].mean() < 2


async def test_a_video_too_large_for_memory_is_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playback, "KEPT_BYTES", 10 * 160 * 120 * 3)
    models = FakeInference(find_square)
    result = await video(tmp_path, models, moving_square(19), samples=RATE)
    assert models.frame_count == 19
    source, frames = read_video(tmp_path / "face.mp4"), read_video(file_of(result))
    assert len(frames) == 25
    boxes = true_boxes(source)
    for n in (0, 18, 19, 24):
        (away,) = outside(frames[n : n + 1], boxes[n % 19][None])
        assert np.abs(frames[n].astype(int) - source[n % 19])[away].mean() < 2


async def test_faces_are_detected_only_in_the_frames_that_are_used(tmp_path: Path) -> None:
    models = FakeInference(find_square)
    await video(tmp_path, models, moving_square(90))
    assert models.frame_count == 26


async def test_an_image_sent_as_a_video_is_looped(tmp_path: Path) -> None:
    models = FakeInference()
    face = write_still(tmp_path / "face.png").rename(tmp_path / "face")
    result = await run(request(tmp_path, face, speech(tmp_path), still=False), models)
    assert result.frames == 26
    assert models.frame_count == 1


@pytest.mark.parametrize("count", [40, 18, 3])
async def test_mouths_generated_in_chunks_equal_those_generated_at_once(tmp_path: Path, count: int) -> None:
    models = Recorder(find_square, darken=True)
    face = write_video(tmp_path / "face.mp4", moving_square(count), "25")
    exact = Options(detection=Detection.EXACT)  # so that the boxes are those of the square to the pixel
    await run(replace(request(tmp_path, face, speech(tmp_path, ODD), still=False), options=exact), models)
    used = read_video(face)[:26]
    rule = mel_windows(mel_spectrogram(tone(ODD / RATE)), 25.0)
    order = np.arange(26) % len(used)
    windows = rule[np.minimum(np.arange(26), len(rule) - 1)]
    whole = darkened(crop(used[order], true_boxes(used)[order]), windows)
    assert np.abs(models.in_order(windows).astype(int) - whole).max() <= 1


async def test_the_last_window_is_repeated_to_the_end(tmp_path: Path) -> None:
    models = Recorder()
    await still(tmp_path, models, 2 * RATE)
    rule = mel_windows(mel_spectrogram(tone(2.0)), 25.0)
    held = np.concatenate((rule, np.repeat(rule[-1:], 50 - len(rule), axis=0)))
    assert len(rule) < 50 == models.window_count
    assert len(models.in_order(held)) == 50


async def test_mouths_are_pasted_in_their_boxes_and_the_rest_is_unchanged(tmp_path: Path) -> None:
    models = FakeInference(find_square, darken=True)
    result = await video(tmp_path, models, moving_square(26))
    source, frames = read_video(tmp_path / "face.mp4"), read_video(file_of(result))
    boxes = true_boxes(source)
    rule = mel_windows(mel_spectrogram(tone(ODD / RATE)), 25.0)
    windows = rule[np.minimum(np.arange(26), len(rule) - 1)]
    expected = paste(source, boxes, darkened(crop(source, boxes), windows))
    assert np.abs(expected.astype(int) - source).max() > 30
    difference = np.abs(frames.astype(int) - expected).max(axis=3)
    away = outside(frames, boxes)
    assert np.percentile(difference[away], 99) <= 8
    assert np.percentile(difference[~away], 95) <= 12  # the codec, at hard edges


@pytest.mark.parametrize("size", [(161, 121), *slow((160, 121), (161, 120))])
async def test_the_last_pixels_of_an_odd_side_are_repeated(tmp_path: Path, size: tuple[int, int]) -> None:
    result = await still(tmp_path, FakeInference(), size=size)
    image = moving_square(1, *size)[0]
    expected = np.pad(image, ((0, size[1] % 2), (0, size[0] % 2), (0, 0)), mode="edge")
    frame = read_video(file_of(result))[0]
    assert frame.shape == expected.shape
    (away,) = outside(frame[None], np.array([[40, 30, 121, 101]]))
    assert np.abs(frame.astype(int) - expected)[away].mean() < 2
    assert np.abs(frame[-1].astype(int) - expected[-1]).mean() < 4
    assert np.abs(frame[:, -1].astype(int) - expected[:, -1]).mean() < 4


@pytest.mark.parametrize("rate", [16_000, 44_100])
async def test_the_audio_is_complete(tmp_path: Path, rate: int) -> None:
    samples = tone(1.37, rate)
    face = write_still(tmp_path / "face.png")
    result = await run(
        request(tmp_path, face, write_wav(tmp_path / "s.wav", samples, rate), still=True), FakeInference()
    )
    sound = read_sound(file_of(result), rate)
    assert len(samples) <= len(sound) < len(samples) + 2048  # AAC has frames of 1024 samples
    assert np.corrcoef(sound[: len(samples)], samples)[0, 1] > 0.99
    assert not np.abs(sound[len(samples) + 64 :]).max(initial=0) > 0.1


async def test_nan_and_infinities_become_silence_in_the_result(tmp_path: Path) -> None:
    samples = tone(1.0)
    damaged = samples.copy()
    damaged[4000:8000] = np.nan
    damaged[9000], damaged[9001] = np.inf, -np.inf
    face = write_still(tmp_path / "face.png")
    result = await run(request(tmp_path, face, write_wav(tmp_path / "s.wav", damaged), still=True), FakeInference())
    sound = read_sound(file_of(result))
    assert np.abs(sound[4500:7500]).max() < 0.02
    assert np.corrcoef(sound[9100:16_000], samples[9100:])[0, 1] > 0.99


async def test_silent_audio_is_accepted(tmp_path: Path) -> None:
    face, quiet = write_still(tmp_path / "face.png"), write_wav(tmp_path / "s.wav", np.zeros(RATE, np.float32))
    result = await run(request(tmp_path, face, quiet, still=True), FakeInference())
    assert result.frames == 25
    assert not read_sound(file_of(result)).any()


async def test_audio_shorter_than_a_window_is_followed_by_silence(tmp_path: Path) -> None:
    result = await still(tmp_path, FakeInference(), samples=800)
    assert result.frames == len(read_video(file_of(result))) == 5
    assert len(read_sound(file_of(result))) >= 3200


async def test_the_result_is_h264_and_aac_with_the_index_first(tmp_path: Path) -> None:
    result = await still(tmp_path, FakeInference())
    about = ffmpeg("-i", str(file_of(result)), "-c", "copy", "-f", "framecrc", "pipe:1").decode()
    assert "#codec_id 0: h264" in about
    assert "#codec_id 1: aac" in about
    data = file_of(result).read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


async def test_stand_ins_are_named_in_the_result(tmp_path: Path) -> None:
    result = await still(tmp_path, FakeInference(stand_ins=("wav2lip", "s3fd")))
    assert result.stand_ins == ("wav2lip", "s3fd")
    assert b"stand-in checkpoints: wav2lip, s3fd" in file_of(result).read_bytes()


async def test_real_weights_leave_no_note(tmp_path: Path) -> None:
    result = await still(tmp_path, FakeInference())
    assert result.stand_ins == ()
    assert b"stand-in" not in file_of(result).read_bytes()


async def test_the_stages_are_timed(tmp_path: Path) -> None:
    result = await video(tmp_path, FakeInference(), moving_square(5))
    assert {"speech", "decode", "detection", "following", "generation", "paste", "encode"} == set(result.seconds)
    assert all(seconds > 0 for seconds in result.seconds.values())


@pytest.mark.parametrize("color", [Background.GREEN, *slow(*COLORS)])
async def test_a_new_background_has_its_true_color_in_the_result(tmp_path: Path, color: Background) -> None:
    models = FakeInference()
    face = write_still(tmp_path / "face.png")
    result = await run(request(tmp_path, face, speech(tmp_path), still=True, background=color), models)
    frame = read_video(file_of(result))[10]
    corner = frame[2:12, 140:158, ::-1].reshape(-1, 3)  # RGB; no pixel of the image is red enough for a person
    assert models.calls["segment"] == 1
    assert color.rgb is not None
    np.testing.assert_allclose(np.median(corner, axis=0), color.rgb, atol=3)


async def test_the_background_of_a_video_is_unchanged_by_default(tmp_path: Path) -> None:
    models = FakeInference(failures={"segment": AssertionError("not for videos")})
    face = write_video(tmp_path / "face.mp4", moving_square(5))
    job = request(tmp_path, face, speech(tmp_path), still=False, background=Background.GREEN)
    assert (await run(job, models)).frames == 26


async def test_a_still_without_a_face_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FaceNotFound, match=r"Face not detected! Ensure the video contains a face in all the frames\."):
        await still(tmp_path, FakeInference(lambda image: None))


async def test_a_box_outside_the_image_is_no_face(tmp_path: Path) -> None:
    for box in ((-50.0, 10.0, -10.0, 50.0), (500.0, 10.0, 600.0, 50.0), (20.0, 30.0, 20.0, 60.0)):
        with pytest.raises(FaceNotFound):
            await still(tmp_path, FakeInference(partial(fixed_box, box)))


async def test_a_video_with_one_frame_without_a_face_is_rejected(tmp_path: Path) -> None:
    frames = moving_square(26)
    frames[20] = 0
    with pytest.raises(FaceNotFound):
        await video(tmp_path, FakeInference(find_square), frames)
    assert not (tmp_path / "avatar.mp4").exists()


async def test_a_frame_without_a_face_after_the_speech_does_not_matter(tmp_path: Path) -> None:
    frames = moving_square(40)
    frames[26:] = 0
    assert (await video(tmp_path, FakeInference(find_square), frames)).frames == 26


@pytest.mark.parametrize("kind", [True, False], ids=["still", "video"])
async def test_an_invalid_face_file_is_rejected_with_its_field(tmp_path: Path, kind: bool) -> None:
    face = tmp_path / "face"
    face.write_text("not an image")
    with pytest.raises(InvalidField, match="face_file: not a"):
        await run(request(tmp_path, face, speech(tmp_path), still=kind), FakeInference())


async def test_an_invalid_audio_file_is_rejected_with_its_field(tmp_path: Path) -> None:
    text = tmp_path / "speech"
    text.write_text("no sound")
    with pytest.raises(InvalidField, match="audio_file: not a"):
        await run(request(tmp_path, write_still(tmp_path / "face.png"), text, still=True), FakeInference())


@pytest.mark.parametrize("kind", [True, False], ids=["still", "video"])
async def test_of_two_invalid_files_the_audio_is_named_whichever_is_found_first(tmp_path: Path, kind: bool) -> None:
    face, text = tmp_path / "face", tmp_path / "speech"
    face.write_text("not an image")
    text.write_text("no sound")  # which takes ffmpeg to find out, and an image that does not
    for _ in range(2):
        with pytest.raises(InvalidField, match="audio_file: not an audio file that can be read"):
            await run(request(tmp_path, face, text, still=kind), FakeInference())
        assert not other_tasks()


async def test_concurrent_jobs_have_the_same_results_as_single_ones(tmp_path: Path) -> None:
    async def job(n: int, where: str) -> Frames:
        folder = tmp_path / f"{where}{n}"
        folder.mkdir()
        frames = moving_square(10 + n, 160 + 16 * n, 120)
        result = await video(folder, FakeInference(find_square, darken=True), frames, samples=ODD + 1000 * n)
        return read_video(file_of(result))

    alone = [await job(n, "alone") for n in range(3)]
    concurrent = await asyncio.gather(*(job(n, "concurrent") for n in range(3)))
    for one, other in zip(alone, concurrent, strict=True):
        np.testing.assert_array_equal(one, other)
