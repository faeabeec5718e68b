"""Audio as it is found in practice: changing on the way, in a row, with gaps, with many channels or unknown ones."""

import shutil
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avatar.errors import InvalidField
from avatar.events import Chunk, RenderResult
from avatar.limits import LIMITS, Limits
from avatar.media.audio import PCM_NAME, decode_audio, pcm_file
from avatar.media.ffmpeg_args import AudioInput
from avatar.media.recordings import MAX_RECORDINGS, find_recordings
from avatar.pipeline import render
from avatar.request import Background
from avatar.testing import FakeInference
from avatar.timing import StageTimer
from tests.support.media import ffmpeg, file_of, names, read_sound, request, run, tone, write_still, write_wav

PIECE = 2.0  # seconds of each recording
Samples = NDArray[np.float32]


@dataclass
class Decoded:
    samples: Samples
    track: AudioInput
    notes: tuple[str, ...]


async def decode(path: Path, limits: Limits = LIMITS) -> Decoded:
    with pcm_file(path.parent) as pcm_path:
        speech = await decode_audio(path, pcm_path, limits, StageTimer())
        return Decoded(speech.read(0, speech.samples), speech.track(LIMITS.max_pixels), speech.notes)


def loudness(samples: Samples, seconds: float = 0.25) -> NDArray[np.float64]:
    """Return the effective value of each piece of the samples."""
    size = int(16_000 * seconds)
    pieces = samples[: len(samples) // size * size].reshape(-1, size)
    return np.asarray(np.sqrt((pieces.astype(np.float64) ** 2).mean(axis=1)))


def in_a_row(folder: Path, suffix: str, *formats: list[str]) -> Path:
    """Write recordings of a tone, each with other parameters, one after the other into one file."""
    wav = write_wav(folder / "source.wav", tone(PIECE))
    with (folder / f"row.{suffix}").open("wb") as row:
        for n, options in enumerate(formats):
            ffmpeg("-i", str(wav), *options, "-y", str(folder / f"{n}.{suffix}"))
            row.write((folder / f"{n}.{suffix}").read_bytes())
    return folder / f"row.{suffix}"


TWICE = ["-af", "pan=stereo|c0=c0|c1=c0"]  # `-ac 2` would make it less loud
MONO, STEREO = ["-ar", "24000"], ["-ar", "24000", *TWICE]
FAST, SLOW = ["-ar", "44100"], ["-ar", "16000"]
CHANGES = [
    ("mp3", [[*MONO, "-b:a", "64k"], [*STEREO, "-b:a", "64k"]]),
    ("mp3", [[*MONO, "-b:a", "64k"], [*FAST, "-b:a", "64k"], [*MONO, "-b:a", "64k"]]),
    ("aac", [MONO, ["-ar", "44100", *TWICE]]),
    ("ogg", [[*MONO, "-c:a", "libvorbis"], [*STEREO, "-c:a", "libvorbis"]]),
    ("ogg", [[*FAST, "-c:a", "libvorbis"], [*SLOW, "-c:a", "libvorbis"]]),
    ("ogg", [["-c:a", "libopus"], [*TWICE, "-c:a", "libopus"]]),
    ("wav", [MONO, [*FAST, "-c:a", "pcm_f32le"], STEREO]),
]


@pytest.mark.parametrize(("suffix", "formats"), CHANGES)
async def test_audio_that_changes_on_the_way_is_decoded_to_its_end(
    tmp_path: Path, suffix: str, formats: list[list[str]]
) -> None:
    decoded = await decode(in_a_row(tmp_path, suffix, *formats))
    assert abs(len(decoded.samples) / 16_000 - PIECE * len(formats)) < 0.12 * len(formats)
    voice = loudness(tone(PIECE), 0.5).mean()
    for piece in np.array_split(decoded.samples, len(formats)):
        assert abs(loudness(piece, 0.5).mean() / voice - 1) < 0.15
    assert decoded.track.is_joined
    assert "the result is mono" in decoded.notes[0]


TRANSPARENT = pytest.param(Background.TRANSPARENT, marks=pytest.mark.slow)  # with Opus in place of AAC


@pytest.mark.parametrize("background", [Background.FROM_INPUT, TRANSPARENT])
@pytest.mark.parametrize(("suffix", "formats"), CHANGES[:5:2])
async def test_the_result_of_audio_that_changes_on_the_way_has_sound_to_its_end(
    tmp_path: Path, suffix: str, formats: list[list[str]], background: Background
) -> None:
    speech = in_a_row(tmp_path, suffix, *formats)
    face = write_still(tmp_path / "face.png")
    result = await run(request(tmp_path, face, speech, still=True, background=background), FakeInference())
    sound = read_sound(file_of(result))
    assert abs(result.duration - PIECE * len(formats)) < 0.12 * len(formats)
    assert abs(len(sound) / 16_000 - result.duration) < 0.1  # by the samples
    assert abs(clock(file_of(result)) - result.duration) < 0.1  # by the clock
    voice = loudness(tone(PIECE), 0.5).mean()
    assert abs(loudness(sound[-8_000 * 3 : -8_000], 0.5).mean() / voice - 1) < 0.2
    assert result.notes
    assert not {PCM_NAME, "speech.s16"} & names(tmp_path)


def clock(path: Path) -> float:
    """Return when the last packet of the audio ends, in seconds, by the clock of the file."""
    listed = ffmpeg("-i", str(path), "-map", "0:a:0", "-c", "copy", "-f", "framecrc", "pipe:1").decode()
    base = next(line.split(": ")[1] for line in listed.splitlines() if line.startswith("#tb"))
    last = [line.split(",") for line in listed.splitlines() if not line.startswith("#")][-1]
    return float((int(last[2]) + int(last[3])) * Fraction(base))


def channels(path: Path) -> str:
    listed = ffmpeg(
        "-i", str(path), "-map", "0:a:0", "-c", "copy", "-frames:a", "1", "-f", "framecrc", "pipe:1"
    ).decode()
    return next(line.split(": ")[1] for line in listed.splitlines() if line.startswith("#channel_layout_name"))


@pytest.mark.parametrize("count", [3, 5, 9, 10, 16, 64])
async def test_the_mean_of_any_number_of_channels_is_decoded(tmp_path: Path, count: int) -> None:
    voice = tone(0.5)
    loud = np.repeat(voice[:, None], count, axis=1)
    loud[:, 0] = 0
    decoded = await decode(write_wav(tmp_path / "a.wav", loud))
    np.testing.assert_allclose(decoded.samples, voice * (count - 1) / count, atol=1e-5)
    assert not decoded.notes


async def test_the_mean_of_five_and_one_channels_is_decoded(tmp_path: Path) -> None:
    one = np.zeros((8_000, 6), np.float32)
    one[:, 2] = tone(0.5)
    decoded = await decode(write_wav(tmp_path / "a.wav", one))
    np.testing.assert_allclose(decoded.samples, tone(0.5) / 6, atol=1e-6)


def surround(path: Path, layout: str, *codec: str) -> Path:
    wav = write_wav(path.with_name("source.wav"), tone(1.0, 48_000), 48_000)
    ffmpeg("-i", str(wav), "-af", f"aformat=channel_layouts={layout}", *codec, "-y", str(path))
    return path


def _speex(folder: Path) -> Path:
    return Path(shutil.copy(Path(__file__).parents[1] / "samples" / "speech.spx", folder))


def _ten(folder: Path) -> Path:
    return write_wav(folder / "ten.wav", np.repeat(tone(1.0)[:, None], 10, axis=1))


def _nan(folder: Path) -> Path:
    samples = np.repeat(tone(1.0)[:, None], 9, axis=1)
    samples[100:200, 3] = np.nan
    return write_wav(folder / "nan.wav", samples)


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "speex": _speex,
    "10 channels": _ten,
    "9 with NaN": _nan,
    "5.1(side)": lambda folder: surround(folder / "a.ac3", "5.1(side)"),
    "hexagonal": lambda folder: surround(folder / "a.wav", "hexagonal"),
    "4.0": lambda folder: surround(folder / "a.flac", "4.0"),
    "2.1": lambda folder: surround(folder / "a.wav", "2.1"),
    "7.1": lambda folder: surround(folder / "a.wav", "7.1"),
    "octagonal": lambda folder: surround(folder / "a.wav", "octagonal"),
    "downmix": lambda folder: surround(folder / "a.mka", "downmix", "-c:a", "pcm_s16le"),
}
QUICK_LAYOUTS = {
    (name, Background.FROM_INPUT) for name in ("speex", "10 channels", "9 with NaN", "5.1(side)", "hexagonal")
}
# Opus, which is in a transparent result, has rules of its own for many channels
QUICK_LAYOUTS |= {(name, Background.TRANSPARENT) for name in ("10 channels", "hexagonal")}


@pytest.mark.parametrize(
    ("layout", "background"),
    [
        pytest.param(name, background, marks=() if (name, background) in QUICK_LAYOUTS else pytest.mark.slow)
        for name in LAYOUTS
        for background in (Background.FROM_INPUT, Background.TRANSPARENT)
    ],
)
async def test_the_result_of_any_layout_is_mono_or_stereo_and_not_silent(
    tmp_path: Path, layout: str, background: Background
) -> None:
    face = write_still(tmp_path / "face.png")
    job = request(tmp_path, face, LAYOUTS[layout](tmp_path), still=True, background=background)
    path = file_of(await run(job, FakeInference()))
    assert channels(path) in ("mono", "stereo")
    assert 0.02 < np.abs(read_sound(path)).max() <= 1


async def test_a_recording_that_cannot_be_decoded_is_left_out_and_noted(tmp_path: Path) -> None:
    row = in_a_row(tmp_path, "wav", MONO, MONO)
    empty = write_wav(tmp_path / "empty.wav", np.zeros(0, np.float32)).read_bytes()
    row.write_bytes(row.read_bytes() + empty)
    decoded = await decode(row)
    assert abs(len(decoded.samples) - 64_000) < 100
    assert decoded.notes[0].startswith("audio_file: ")


async def test_wavs_in_a_row_are_all_decoded(tmp_path: Path) -> None:
    row = tmp_path / "row.wav"
    pieces = [write_wav(tmp_path / "a.wav", tone(0.5)).read_bytes() for _ in range(3)]
    row.write_bytes(b"".join(pieces))
    decoded = await decode(row)
    np.testing.assert_allclose(decoded.samples, np.tile(tone(0.5), 3), atol=1e-6)
    assert decoded.notes == ("audio_file: 3 recordings in a row were joined; the result is mono",)


async def test_too_many_recordings_in_a_row_are_rejected(tmp_path: Path) -> None:
    row = tmp_path / "row.wav"
    row.write_bytes(write_wav(tmp_path / "a.wav", tone(0.01)).read_bytes() * (MAX_RECORDINGS + 1))
    with pytest.raises(InvalidField, match="at most 100 recordings"):
        await decode(row)


async def test_recordings_in_a_row_are_too_long_together(tmp_path: Path) -> None:
    row = in_a_row(tmp_path, "wav", MONO, MONO)
    with pytest.raises(InvalidField, match="at most 3 seconds"):
        await decode(row, Limits(max_audio_seconds=3))
    assert len((await decode(row, Limits(max_audio_seconds=4))).samples) == 64_000


def test_a_file_that_is_one_recording_or_unknown_has_one_range(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "a.wav", tone(0.1))
    for content in (b"", b"RIFF", b"OggS", wav.read_bytes(), wav.read_bytes() + b"rest", b"RIFF\0\0\0\0WAVE" * 9):
        (tmp_path / "file").write_bytes(content)
        assert find_recordings(tmp_path / "file") == [range(len(content))]


async def test_gaps_in_the_clock_are_closed_and_noted(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "a.wav", tone(2.0))
    gap = ["-af", "asetpts='PTS+gte(T,1)*3/TB'", "-c:a", "libopus", "-ar", "48000"]
    ffmpeg("-i", str(wav), *gap, "-y", str(tmp_path / "a.webm"))
    decoded = await decode(tmp_path / "a.webm")
    assert abs(len(decoded.samples) / 16_000 - 2) < 0.1
    assert decoded.notes == ("audio_file: 3.0 s of gaps in its clock were closed",)


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.ogg", "a.opus", "a.flac", "a.webm", "a.wav", "a.aiff"])
async def test_an_ordinary_recording_keeps_its_own_track_without_a_note(tmp_path: Path, name: str) -> None:
    wav = write_wav(tmp_path / "source.wav", np.repeat(tone(1.0)[:, None], 2, axis=1))
    ffmpeg("-i", str(wav), "-y", str(tmp_path / name))
    decoded = await decode(tmp_path / name)
    assert (decoded.track.path, decoded.track.mix, decoded.notes) == (tmp_path / name, "", ())


@pytest.mark.parametrize("rate", [8_000, 11_025])
async def test_a_streamed_result_of_speech_of_a_low_rate_has_no_long_delay(tmp_path: Path, rate: int) -> None:
    face, speech = write_still(tmp_path / "face.png"), write_wav(tmp_path / "a.wav", tone(2.0, rate), rate)
    job = replace(request(tmp_path, face, speech, still=True), streamed=True)
    chunks: list[bytes] = []
    async with aclosing(render(job, FakeInference())) as events:
        async for event in events:
            if isinstance(event, Chunk):
                chunks.append(event.data)
            if isinstance(event, RenderResult):
                assert event.duration == 2
    (tmp_path / "a.mp4").write_bytes(b"".join(chunks))
    sound = read_sound(tmp_path / "a.mp4")
    late = int(np.argmax(np.abs(sound) > 0.05)) - int(np.argmax(np.abs(tone(2.0)) > 0.05))
    assert abs(late) / 16_000 < 0.03
    assert len(sound) / 16_000 - 2 < 0.07
