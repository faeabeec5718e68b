import asyncio
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from avatar.errors import FaceNotFound, InvalidField
from avatar.events import RenderResult
from avatar.generation.generator import CHUNK_FRAMES
from avatar.limits import Limits
from avatar.options import Generator
from avatar.request import Background
from avatar.testing import FakeModels, darkened
from lipsync.arrays import Floats
from lipsync.boxes import pad, smooth
from lipsync.crop import crop, paste
from lipsync.mel import mel_spectrogram
from lipsync.mel_windows import mel_windows
from tests.support.media import (
    RATE,
    Frames,
    ffmpeg,
    find_square,
    frame_count,
    frame_rate,
    moving_square,
    names,
    read_sound,
    read_video,
    request,
    run,
    tone,
    write_still,
    write_video,
    write_wav,
)

ODD = 16_213  # samples; 1.0133125 s, a whole number of frames at no rate


class Recorder(FakeModels):
    """Remembers what `lipsync` was given and gave, call by call."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.shots: list[tuple[Floats, Frames]] = []

    async def lipsync(self, frames: Frames, boxes: NDArray[np.int32], windows: Floats, net: Generator) -> Frames:
        mouths = await super().lipsync(frames, boxes, windows, net)
        self.shots.append((windows, mouths))
        return mouths

    def in_order(self, windows: Floats) -> Frames:
        """The mouths in the order of the clip's windows: calls that overlap come in any order."""
        clip: dict[int, Frames] = {}
        for heard, mouths in self.shots:
            starts = [
                start
                for start in range(0, len(windows), CHUNK_FRAMES)
                if heard.shape == windows[start : start + CHUNK_FRAMES].shape
                and np.allclose(heard, windows[start : start + CHUNK_FRAMES], atol=1e-4)
            ]
            assert len(starts) == 1
            clip[starts[0]] = mouths
        return np.concatenate([clip[start] for start in range(0, len(windows), CHUNK_FRAMES)])


def speech(folder: Path, samples: int = ODD) -> Path:
    return write_wav(folder / "speech.wav", tone(samples / RATE))


async def still(folder: Path, models: FakeModels, samples: int = ODD, size: tuple[int, int] = (160, 120)) -> RenderResult:
    job = request(folder, write_still(folder / "face.png", *size), speech(folder, samples), still=True)
    return await run(job, models)


async def video(folder: Path, models: FakeModels, frames: Frames, fps: str = "25", samples: int = ODD) -> RenderResult:
    face = write_video(folder / "face.mp4", frames, fps)
    return await run(request(folder, face, speech(folder, samples), still=False), models)


def outside(frames: Frames, boxes: NDArray[np.int32], margin: int = 6) -> NDArray[np.bool_]:
    """Where pixels [n,H,W] are away from their frame's box; the codec smears a little across its edge."""
    away = np.ones(frames.shape[:3], bool)
    for mask, (x1, y1, x2, y2) in zip(away, boxes, strict=True):
        mask[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin] = False
    return away


def true_boxes(frames: Frames) -> NDArray[np.int32]:
    """The padded and smoothed boxes of a whole clip, in one go."""
    found = np.array([find_square(frame) for frame in frames], np.int32)
    return smooth(pad(found, frames.shape[2], frames.shape[1]))


@pytest.mark.parametrize("fps", ["24000/1001", "25", "30000/1001", "12.5", "60000/1001"])
async def test_the_picture_lasts_as_long_as_the_speech(tmp_path: Path, fps: str) -> None:
    result = await video(tmp_path, FakeModels(), moving_square(90), fps)
    assert result.frames == len(read_video(result.path)) == frame_count(ODD, Fraction(fps))
    assert result.fps == Fraction(fps)
    assert frame_rate(result.path) == float(Fraction(fps))
    assert result.duration == ODD / RATE


async def test_more_frames_than_can_be_worked_on_are_refused_before_a_net_is_asked(tmp_path: Path) -> None:
    models = FakeModels()
    face = write_video(tmp_path / "face.mp4", moving_square(5), "240")
    long = write_wav(tmp_path / "speech.wav", np.zeros(500, np.float32), rate=1)
    with pytest.raises(InvalidField, match="audio_file: too long for this frame rate: 120000 frames, 100000 at most"):
        job = request(tmp_path, face, long, still=False)
        await run(replace(job, limits=Limits(max_frames=100_000)), models)
    assert set(models.calls) <= {"model_info"}


@pytest.mark.parametrize("samples", [3200, 3201, 16_000, 16_001])
async def test_a_still_is_shown_at_25_frames_a_second(tmp_path: Path, samples: int) -> None:
    result = await still(tmp_path, FakeModels(), samples)
    assert result.frames == len(read_video(result.path)) == frame_count(samples, Fraction(25))
    assert frame_rate(result.path) == 25


async def test_the_result_lies_in_the_folder_of_the_request(tmp_path: Path) -> None:
    result = await still(tmp_path, FakeModels())
    assert result.path.parent == tmp_path
    assert names(tmp_path) == {"face.png", "speech.wav", result.path.name}


async def test_a_still_is_detected_once_and_sent_once_a_shot(tmp_path: Path) -> None:
    models = FakeModels()
    result = await still(tmp_path, models, 3 * RATE)
    assert models.frames == 1
    assert models.mouths == result.frames == 75
    assert models.sent == models.calls["lipsync"] * 80 * 70 * 3  # the box, padded by ten rows


async def test_a_video_shorter_than_the_speech_is_looped(tmp_path: Path) -> None:
    models = FakeModels(find_square)
    result = await video(tmp_path, models, moving_square(7))
    source = read_video(tmp_path / "face.mp4")
    boxes = true_boxes(source)
    frames = read_video(result.path)
    assert len(frames) == 26
    assert models.frames == 7
    order = np.arange(26) % 7
    away = outside(frames, boxes[order])
    assert np.abs(frames.astype(int) - source[order])[away].mean() < 2


async def test_a_video_too_long_to_be_kept_is_decoded_again(tmp_path: Path) -> None:
    models = FakeModels(find_square)
    result = await video(tmp_path, models, moving_square(76, 640, 480), samples=RATE * 4)  # 70 MB decoded
    assert models.frames == 76
    source, frames = read_video(tmp_path / "face.mp4"), read_video(result.path)
    assert len(frames) == 100
    boxes = true_boxes(source)
    for n in (0, 75, 76, 99):
        (away,) = outside(frames[n : n + 1], boxes[n % 76][None])
        assert np.abs(frames[n].astype(int) - source[n % 76])[away].mean() < 2


async def test_only_the_pictures_that_are_used_are_looked_at(tmp_path: Path) -> None:
    models = FakeModels(find_square)
    await video(tmp_path, models, moving_square(90))
    assert models.frames == 26


async def test_a_picture_sent_as_a_video_is_looped(tmp_path: Path) -> None:
    models = FakeModels()
    face = write_still(tmp_path / "face.png").rename(tmp_path / "face")
    result = await run(request(tmp_path, face, speech(tmp_path), still=False), models)
    assert result.frames == 26
    assert models.frames == 1


@pytest.mark.parametrize("count", [40, 18, 3])
async def test_mouths_made_in_pieces_are_those_made_at_once(tmp_path: Path, count: int) -> None:
    models = Recorder(find_square, darken=True)
    await video(tmp_path, models, moving_square(count))
    used = read_video(tmp_path / "face.mp4")[:26]
    heard = mel_windows(mel_spectrogram(tone(ODD / RATE)), 25.0)
    order = np.arange(26) % len(used)
    windows = heard[np.minimum(np.arange(26), len(heard) - 1)]
    whole = darkened(crop(used[order], true_boxes(used)[order]), windows)
    assert np.abs(models.in_order(windows).astype(int) - whole).max() <= 1


async def test_the_last_window_is_held_to_the_end(tmp_path: Path) -> None:
    models = Recorder()
    await still(tmp_path, models, 2 * RATE)
    rule = mel_windows(mel_spectrogram(tone(2.0)), 25.0)
    held = np.concatenate((rule, np.repeat(rule[-1:], 50 - len(rule), axis=0)))
    assert len(rule) < 50 == models.mouths
    assert len(models.in_order(held)) == 50


async def test_only_the_rectangle_around_the_faces_is_sent(tmp_path: Path) -> None:
    models = FakeModels(find_square)
    frames = moving_square(26, 320, 240)
    await video(tmp_path, models, frames)
    assert models.sent < frames.nbytes / 6


async def test_mouths_lie_in_their_boxes_and_the_rest_of_the_picture_stays(tmp_path: Path) -> None:
    models = FakeModels(find_square, darken=True)
    result = await video(tmp_path, models, moving_square(26))
    source, frames = read_video(tmp_path / "face.mp4"), read_video(result.path)
    boxes = true_boxes(source)
    heard = mel_windows(mel_spectrogram(tone(ODD / RATE)), 25.0)
    windows = heard[np.minimum(np.arange(26), len(heard) - 1)]
    wanted = paste(source, boxes, darkened(crop(source, boxes), windows))
    assert np.abs(wanted.astype(int) - source).max() > 30
    difference = np.abs(frames.astype(int) - wanted).max(axis=3)
    away = outside(frames, boxes)
    assert np.percentile(difference[away], 99) <= 8
    assert np.percentile(difference[~away], 95) <= 12  # the codec, at hard edges


@pytest.mark.parametrize("size", [(161, 121), (160, 121), (161, 120)])
async def test_an_odd_side_gets_its_last_pixels_once_more(tmp_path: Path, size: tuple[int, int]) -> None:
    result = await still(tmp_path, FakeModels(), size=size)
    picture = moving_square(1, *size)[0]
    wanted = np.pad(picture, ((0, size[1] % 2), (0, size[0] % 2), (0, 0)), mode="edge")
    frame = read_video(result.path)[0]
    assert frame.shape == wanted.shape
    (away,) = outside(frame[None], np.array([[40, 30, 121, 101]]))
    assert np.abs(frame.astype(int) - wanted)[away].mean() < 2
    assert np.abs(frame[-1].astype(int) - wanted[-1]).mean() < 4
    assert np.abs(frame[:, -1].astype(int) - wanted[:, -1]).mean() < 4


@pytest.mark.parametrize("rate", [16_000, 44_100])
async def test_the_sound_is_whole(tmp_path: Path, rate: int) -> None:
    voice = tone(1.37, rate)
    face = write_still(tmp_path / "face.png")
    result = await run(request(tmp_path, face, write_wav(tmp_path / "s.wav", voice, rate), still=True), FakeModels())
    sound = read_sound(result.path, rate)
    assert len(voice) <= len(sound) < len(voice) + 2048  # AAC has frames of 1024 samples
    assert np.corrcoef(sound[: len(voice)], voice)[0, 1] > 0.99
    assert not np.abs(sound[len(voice) + 64 :]).max(initial=0) > 0.1


async def test_sound_with_nan_and_infinities_is_heard_with_silence_there(tmp_path: Path) -> None:
    voice = tone(1.0)
    hurt = voice.copy()
    hurt[4000:8000] = np.nan
    hurt[9000], hurt[9001] = np.inf, -np.inf
    face = write_still(tmp_path / "face.png")
    result = await run(request(tmp_path, face, write_wav(tmp_path / "s.wav", hurt), still=True), FakeModels())
    sound = read_sound(result.path)
    assert np.abs(sound[4500:7500]).max() < 0.02
    assert np.corrcoef(sound[9100:16_000], voice[9100:])[0, 1] > 0.99


async def test_silence_works(tmp_path: Path) -> None:
    face, quiet = write_still(tmp_path / "face.png"), write_wav(tmp_path / "s.wav", np.zeros(RATE, np.float32))
    result = await run(request(tmp_path, face, quiet, still=True), FakeModels())
    assert result.frames == 25
    assert not read_sound(result.path).any()


async def test_speech_shorter_than_a_window_gets_silence_after_it(tmp_path: Path) -> None:
    result = await still(tmp_path, FakeModels(), samples=800)
    assert result.frames == len(read_video(result.path)) == 5
    assert len(read_sound(result.path)) >= 3200


async def test_the_result_is_a_video_that_every_player_takes(tmp_path: Path) -> None:
    result = await still(tmp_path, FakeModels())
    about = ffmpeg("-i", str(result.path), "-c", "copy", "-f", "framecrc", "pipe:1").decode()
    assert "#codec_id 0: h264" in about
    assert "#codec_id 1: aac" in about
    data = result.path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


async def test_stand_ins_are_named_in_the_result(tmp_path: Path) -> None:
    result = await still(tmp_path, FakeModels(stand_ins=("wav2lip", "s3fd")))
    assert result.stand_ins == ("wav2lip", "s3fd")
    assert b"stand-in checkpoints: wav2lip, s3fd" in result.path.read_bytes()


async def test_real_weights_leave_no_note(tmp_path: Path) -> None:
    result = await still(tmp_path, FakeModels())
    assert result.stand_ins == ()
    assert b"stand-in" not in result.path.read_bytes()


async def test_the_stages_are_timed(tmp_path: Path) -> None:
    result = await video(tmp_path, FakeModels(), moving_square(5))
    assert {"speech", "decode", "detection", "following", "generation", "paste", "encode"} == set(result.seconds)
    assert all(seconds > 0 for seconds in result.seconds.values())


@pytest.mark.parametrize("colour", [colour for colour in Background if colour.rgb])
async def test_a_new_background_has_its_true_colour_in_the_result(tmp_path: Path, colour: Background) -> None:
    models = FakeModels()
    face = write_still(tmp_path / "face.png")
    result = await run(request(tmp_path, face, speech(tmp_path), still=True, background=colour), models)
    frame = read_video(result.path)[10]
    corner = frame[2:12, 140:158, ::-1].reshape(-1, 3)  # RGB; nothing in the picture is red enough for a person
    assert models.calls["segment"] == 1
    np.testing.assert_allclose(np.median(corner, axis=0), colour.rgb, atol=3)


async def test_a_videos_background_stays(tmp_path: Path) -> None:
    models = FakeModels(failures={"segment": AssertionError("not for videos")})
    face = write_video(tmp_path / "face.mp4", moving_square(5))
    job = request(tmp_path, face, speech(tmp_path), still=False, background=Background.GREEN)
    assert (await run(job, models)).frames == 26


async def test_a_still_without_a_face_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FaceNotFound, match=r"Face not detected! Ensure the video contains a face in all the frames\."):
        await still(tmp_path, FakeModels(lambda picture: None))


async def test_a_face_that_lies_outside_the_picture_is_none(tmp_path: Path) -> None:
    for box in ((-50.0, 10.0, -10.0, 50.0), (500.0, 10.0, 600.0, 50.0), (20.0, 30.0, 20.0, 60.0)):
        with pytest.raises(FaceNotFound):
            await still(tmp_path, FakeModels(lambda picture, box=box: box))


async def test_one_frame_without_a_face_spoils_a_video(tmp_path: Path) -> None:
    frames = moving_square(26)
    frames[20] = 0
    with pytest.raises(FaceNotFound):
        await video(tmp_path, FakeModels(find_square), frames)
    assert not (tmp_path / "avatar.mp4").exists()


async def test_a_frame_without_a_face_after_the_speech_does_not_matter(tmp_path: Path) -> None:
    frames = moving_square(40)
    frames[26:] = 0
    assert (await video(tmp_path, FakeModels(find_square), frames)).frames == 26


@pytest.mark.parametrize("kind", [True, False], ids=["still", "video"])
async def test_a_file_that_is_no_face_file_is_refused_by_name(tmp_path: Path, kind: bool) -> None:
    face = tmp_path / "face"
    face.write_text("no picture")
    with pytest.raises(InvalidField, match="face_file: not a"):
        await run(request(tmp_path, face, speech(tmp_path), still=kind), FakeModels())


async def test_a_file_that_is_no_speech_is_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "speech"
    text.write_text("no sound")
    with pytest.raises(InvalidField, match="audio_file: not a"):
        await run(request(tmp_path, write_still(tmp_path / "face.png"), text, still=True), FakeModels())


async def test_jobs_at_the_same_time_give_what_they_give_alone(tmp_path: Path) -> None:
    async def job(n: int, where: str) -> Frames:
        folder = tmp_path / f"{where}{n}"
        folder.mkdir()
        frames = moving_square(10 + n, 160 + 16 * n, 120)
        result = await video(folder, FakeModels(find_square, darken=True), frames, samples=ODD + 1000 * n)
        return read_video(result.path)

    alone = [await job(n, "alone") for n in range(4)]
    together = await asyncio.gather(*(job(n, "together") for n in range(4)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
