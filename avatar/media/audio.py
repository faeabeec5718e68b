"""Decode the caller's audio file to a file of samples, and read parts of it.

The samples are the mean of the file's channels. The result gets the caller's own track, if it is mono or stereo; if it
is not, a mix. Audio that changes its channels or its rate on the way, and recordings in a row in one file, are stored
once more as one mono track.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from lipsync.arrays import Floats
from lipsync.mel import SAMPLE_RATE
from lipsync.tensors import SPEECH_FILE

from ..errors import InvalidField
from ..limits import Limits, check_not_empty
from ..streams import cancel_and_wait
from ..timing import StageTimer
from . import ffmpeg, ffmpeg_args, ffmpeg_output
from .diagnosis import rule_out_machine, run_on, watched
from .ffmpeg_args import AudioInput
from .ffmpeg_output import AudioFormat
from .recordings import MAX_RECORDINGS, find_recordings
from .resampling import RATES, store_resampled
from .wav import PcmFile, read_wav

TOO_SLOW = "decoding the audio takes too long"
LENGTH_POLL_SECONDS = 0.5
FLOAT_CODECS = ("pcm_f", "wavpack")  # codecs, by ffmpeg's names, that can store NaN and infinities
MIN_SAMPLES = int(ffmpeg_args.MIN_AUDIO_SECONDS * SAMPLE_RATE)
PCM_NAME = "speech.f32"  # in the request's folder
JOINED, PCM_PART, JOINED_PART = ".s16", ".f32.part", ".s16.part"  # suffixes of other files of the same name
SAMPLE_BYTES = 4
COPIED_BYTES = 1 << 20
# Layouts that every player takes, and those that ffmpeg mixes to stereo; of any other layout the mean is taken.
COMMON_LAYOUTS = frozenset({"mono", "stereo"})
SURROUND_LAYOUTS = frozenset(
    {"2.1", "3.0", "3.0(back)", "3.1", "4.0", "4.1", "quad", "quad(side)", "5.0", "5.0(side)", "5.1", "5.1(side)"}
    | {"6.0", "6.1", "7.0", "7.1"}
)
SHORTEST_PAUSE = Fraction(1, 10)  # seconds by which the clock of a recording jumps; a shorter jump is a rounding error


@dataclass(frozen=True)
class Speech:
    """Decoded audio.

    Attributes:
        path: the caller's file, for the audio track of the result.
        pcm_path: where the decoded samples are, FP32, 16 kHz mono; nowhere if they are `plain`.
        samples: number of samples, including the silence that follows; at least 0.2 s.
        is_finite: whether the codec cannot store NaN or infinities; if it can, `ffmpeg_args.SANITIZE` is the first
            filter.
        rate: samples per second of the file; 0 if it does not matter.
        mix: ffmpeg filters that make the track of the result mono or stereo; empty if it is already.
        is_joined: whether the track of the result is the joined one, next to `pcm_path`.
        notes: sentences that say what was done with an unusual file.
        plain: the samples in the caller's file, if they can be read from there; otherwise None.
    """

    path: Path
    pcm_path: Path
    samples: int
    is_finite: bool
    rate: int = 0
    mix: str = ""
    is_joined: bool = False
    notes: tuple[str, ...] = ()
    plain: PcmFile | None = None

    @property
    def duration(self) -> Fraction:
        """Return the exact length in seconds."""
        return Fraction(self.samples, SAMPLE_RATE)

    def frame_count(self, fps: Fraction) -> int:
        """Return the number of frames that cover the audio; a last frame that is covered in part counts."""
        return -int(-self.duration * fps // 1)

    def track(self, max_pixels: int) -> AudioInput:
        """Return the audio track of the result; `max_pixels`: largest cover art."""
        path = self.pcm_path.with_suffix(JOINED) if self.is_joined else self.path
        return AudioInput(path, self.is_finite, self.duration, max_pixels, self.rate, self.mix, self.is_joined)

    def padded_to(self, duration: Fraction) -> Speech:
        """Return the same audio, followed by silence if it is shorter than `duration` seconds."""
        return replace(self, samples=max(self.samples, round(duration * SAMPLE_RATE)))

    def read(self, first: int, end: int) -> Floats:
        """Return the samples from `first` up to, not including, `end`, FP32 [n]; zeros after the end of the audio."""
        return (self.plain or PcmFile(self.pcm_path, self.samples)).read(first, end)


@contextmanager
def pcm_file(folder: Path) -> Iterator[Path]:
    """Give the path at which `decode_audio` stores the samples; delete it afterwards, and its other files."""
    path = folder / PCM_NAME
    try:
        yield path
    finally:
        for suffix in (path.suffix, JOINED, PCM_PART, JOINED_PART):
            path.with_suffix(suffix).unlink(missing_ok=True)


async def decode_audio(path: Path, pcm_path: Path, limits: Limits, timer: StageTimer) -> Speech:
    """Decode an audio file of any supported format into the file `pcm_path`.

    Raises:
        InvalidField: `audio_file` is empty, cannot be decoded, has no audio stream, or is longer than allowed.
        MachineFault: the machine fails, and not the file.
    """
    with timer.stage("speech"):
        return await _decode_audio(path, pcm_path, limits)


async def _decode_audio(path: Path, pcm_path: Path, limits: Limits) -> Speech:
    check_not_empty(SPEECH_FILE, path)
    plain, recordings = await asyncio.to_thread(lambda: (read_wav(path), find_recordings(path)))
    if plain and plain.rate in RATES:
        return await _read_plain(plain, pcm_path, limits)
    decoded = None
    if len(recordings) == 1:
        decoded = await _decode_at_once(path, pcm_path, plain is None or plain.is_finite, limits)
    if decoded is None:
        decoded = await _decode_in_steps(path, pcm_path, recordings, limits)
    (_, probed, notes), formats, is_finite = decoded
    mix, is_joined = "", len(set(formats)) != 1
    if is_joined:
        notes += await _join(path, recordings, pcm_path, limits)
        is_finite = True
    else:
        mix = _mix(formats)
    samples = await asyncio.to_thread(_file_size, pcm_path) // SAMPLE_BYTES
    if not samples:
        await rule_out_machine(path)
        raise InvalidField(SPEECH_FILE, "the file contains no audio")
    rate = ffmpeg_args.JOINED_RATE if is_joined else probed.rate
    return Speech(path, pcm_path, _checked_length(samples, limits), is_finite, rate, mix, is_joined, notes)


async def _read_plain(wav: PcmFile, pcm_path: Path, limits: Limits) -> Speech:
    """Return the speech of a plain WAV file without ffmpeg, which takes as long to start as all the rest."""
    samples = _checked_length(wav.samples * SAMPLE_RATE // wav.rate, limits)
    if wav.rate == SAMPLE_RATE:
        return Speech(wav.path, pcm_path, samples, wav.is_finite, wav.rate, plain=wav)
    samples = _checked_length(await store_resampled(wav, pcm_path), limits)
    return Speech(wav.path, pcm_path, samples, wav.is_finite, wav.rate)


def _checked_length(samples: int, limits: Limits) -> int:
    """Return the number of samples with the silence that follows. Raises InvalidField if they are too many."""
    if samples > limits.max_audio_seconds * SAMPLE_RATE:
        raise InvalidField(SPEECH_FILE, limits.too_long)
    return max(samples, MIN_SAMPLES)


class _Decoded(NamedTuple):
    """What is known after decoding: `formats` of the audio, one after the other; none of several recordings."""

    probe: _Probe
    formats: list[AudioFormat]
    is_finite: bool


async def _decode_at_once(path: Path, pcm_path: Path, is_finite: bool, limits: Limits) -> _Decoded | None:
    """Probe and decode the file with one run of ffmpeg.

    Returns:
        None if that fails: then two runs say what is wrong. None also if the samples are not `is_finite`, but were
        decoded as such.
    """
    args = _decode_args(path, pcm_path, is_finite, limits, described=True)
    try:
        text, stderr = await watched(_run_until_too_long(args, pcm_path, limits))
    except ffmpeg.FfmpegTimeout as error:  # two runs would take at least as long
        await rule_out_machine(path)
        raise InvalidField(SPEECH_FILE, TOO_SLOW) from error
    except ffmpeg.FfmpegError:
        return None
    probe = await asyncio.to_thread(_described, text.decode(errors="replace"))
    if probe is None or (is_finite and probe.codec.startswith(FLOAT_CODECS)):
        return None
    # a damaged file can cause so many messages that the formats are no longer among them
    return _Decoded(probe, ffmpeg_output.parse_formats(stderr) or [probe.format], is_finite)


async def _run_until_too_long(args: list[str], pcm_path: Path, limits: Limits) -> tuple[bytes, str]:
    """Run ffmpeg, which reads on for its list of packets when it has decoded enough, until that is done or too long.

    Raises:
        InvalidField: the audio is longer than allowed.
    """
    running = asyncio.create_task(ffmpeg.run(args))
    try:
        while not (await asyncio.wait((running,), timeout=LENGTH_POLL_SECONDS))[0]:
            _checked_length(await asyncio.to_thread(_file_size, pcm_path) // SAMPLE_BYTES, limits)
        return await running
    finally:
        await cancel_and_wait(running)
        del running  # it may hold an error, and that this frame


async def _decode_in_steps(path: Path, pcm_path: Path, recordings: list[range], limits: Limits) -> _Decoded:
    """Probe the file, and decode it if it holds one recording."""
    probe = await _probe(path, limits)
    if len(recordings) > MAX_RECORDINGS:
        raise InvalidField(SPEECH_FILE, f"at most {MAX_RECORDINGS} recordings in a row are allowed; join them first")
    is_finite = not probe.codec.startswith(FLOAT_CODECS)
    formats = []
    if len(recordings) == 1:
        formats = await _decode(path, pcm_path, is_finite, limits) or [probe.format]
    return _Decoded(probe, formats, is_finite)


def _mix(formats: Sequence[AudioFormat]) -> str:
    """Return the filters that make audio of this format mono or stereo; empty if it is already."""
    if formats[0].layout in COMMON_LAYOUTS:
        return ""
    return ffmpeg_args.STEREO if formats[0].layout in SURROUND_LAYOUTS else ffmpeg_args.MEAN_OF_CHANNELS


async def _decode(path: Path, pcm_path: Path, is_finite: bool, limits: Limits) -> list[AudioFormat]:
    """Decode the file; return the formats of the audio, one after the other."""
    try:
        _, stderr = await run_on(path, _decode_args(path, pcm_path, is_finite, limits))
    except ffmpeg.FfmpegError as error:
        is_slow = isinstance(error, ffmpeg.FfmpegTimeout)
        reason = TOO_SLOW if is_slow else "the audio cannot be decoded"
        raise InvalidField(SPEECH_FILE, reason) from error
    return ffmpeg_output.parse_formats(stderr)


def _decode_args(path: Path, pcm_path: Path, is_finite: bool, limits: Limits, *, described: bool = False) -> list[str]:
    # one second more than allowed, to detect audio that is too long
    seconds = limits.max_audio_seconds + 1
    return ffmpeg_args.decode_audio_args(
        path, limits.max_pixels, pcm_path, is_finite=is_finite, seconds=seconds, described=described
    )


async def _join(path: Path, recordings: list[range], pcm_path: Path, limits: Limits) -> tuple[str, ...]:
    """Decode all recordings into one file of samples and one joined track; return notes.

    A recording that cannot be decoded is left out.
    """
    targets = [pcm_path, pcm_path.with_suffix(JOINED)]
    parts = [pcm_path.with_suffix(PCM_PART), pcm_path.with_suffix(JOINED_PART)]
    await asyncio.to_thread(_empty, targets)
    left_out = 0
    for recording in recordings:
        samples = await asyncio.to_thread(_file_size, pcm_path) // SAMPLE_BYTES
        seconds = limits.max_audio_seconds + 1 - samples // SAMPLE_RATE
        if seconds <= 0:
            break  # too long already
        byte_range = recording if len(recordings) > 1 else None
        args = ffmpeg_args.join_audio_args(path, limits.max_pixels, byte_range, *parts, seconds=seconds)
        try:
            await run_on(path, args)
        except ffmpeg.FfmpegError as error:
            if isinstance(error, ffmpeg.FfmpegTimeout) or len(recordings) == 1:
                raise InvalidField(SPEECH_FILE, "the audio cannot be decoded") from error
            left_out += 1
            continue
        await asyncio.to_thread(_append, parts, targets)
    if len(recordings) == 1:
        return ("audio_file: the channels or the rate change on the way; the result is mono",)
    joined = f"audio_file: {len(recordings) - left_out} recordings in a row were joined; the result is mono"
    return (joined, f"audio_file: {left_out} of them cannot be decoded and are left out") if left_out else (joined,)


def _empty(files: Sequence[Path]) -> None:
    for file in files:
        file.write_bytes(b"")


def _append(parts: Sequence[Path], targets: Sequence[Path]) -> None:
    """Move the content of each part to the end of its target."""
    for part, target in zip(parts, targets, strict=True):
        if not part.exists():  # a recording without a sample
            continue
        with part.open("rb") as source, target.open("ab") as out:
            shutil.copyfileobj(source, out, COPIED_BYTES)
        part.unlink()


def _file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class _Probe(NamedTuple):
    """The first audio stream: its codec, by ffmpeg's name, its format as far as it is known, and notes."""

    codec: str
    format: AudioFormat
    notes: tuple[str, ...]


async def _probe(path: Path, limits: Limits) -> _Probe:
    try:
        text, _ = await run_on(path, ffmpeg_args.probe_audio_args(path, limits.max_pixels))
    except ffmpeg.FfmpegError as error:
        has_no_audio = ffmpeg_output.NO_SUCH_STREAM in error.stderr_tail
        reason = "the file contains no audio" if has_no_audio else "not an audio file that can be read"
        raise InvalidField(SPEECH_FILE, reason) from error
    probe = await asyncio.to_thread(_described, text.decode(errors="replace"))
    if probe is None:
        await rule_out_machine(path)
        raise InvalidField(SPEECH_FILE, "the file contains no audio")
    return probe


def _described(packets: str) -> _Probe | None:
    """Return what a list of packets says; None for one without a packet."""
    properties = ffmpeg_output.parse_probe(packets)
    if "tb" not in properties:
        return None
    pauses = ffmpeg_output.parse_pauses(packets, SHORTEST_PAUSE)
    notes = (f"audio_file: {float(pauses):.1f} s of gaps in its clock were closed",) if pauses else ()
    layout = ffmpeg_output.named_layout(properties.get("channel_layout_name", ""))
    return _Probe(properties.get("codec_id", ""), AudioFormat(0, layout, int(properties.get("sample_rate", 0))), notes)
