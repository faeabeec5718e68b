"""A failure of ffmpeg is the caller's only if the same file would fail again; otherwise it is the machine's."""

import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.errors import FfmpegFault, InvalidField, MachineFault, StorageFault
from avatar.limits import LIMITS
from avatar.media import diagnosis, ffmpeg, self_test
from avatar.media.audio import decode_audio, pcm_file
from avatar.media.decoding import read_frames
from avatar.media.encoder import VideoEncoder
from avatar.media.ffmpeg_args import AudioInput, VideoFormat
from avatar.options import Options, Quality
from avatar.timing import StageTimer
from tests.support.fake_ffmpeg import FAULTS, FakeFfmpeg
from tests.support.media import children, moving_square, probe_video, tone, write_video, write_wav
from tests.support.media import ffmpeg as ffmpeg_cli

LOGGER = ffmpeg.logger
PROBE_AUDIO, DECODE_AUDIO = "0:a:0 -c copy", "f32le"
PROBE_VIDEO, LIST_PACKETS, DECODE_VIDEO = "showinfo", "-c copy -frames:v", "rawvideo -pix_fmt bgr24 pipe:1"
IN_MEMORY = "/proc/"  # the files of the self-test
AUDIO_RUNS, VIDEO_RUNS = (PROBE_AUDIO, DECODE_AUDIO), (PROBE_VIDEO, LIST_PACKETS, DECODE_VIDEO)


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A program that hangs on every file is found in a second; any other has all the time of a busy machine."""
    monkeypatch.setattr(diagnosis, "SUSPICION_SECONDS", 1.0)
    callspec = getattr(request.node, "callspec", None)
    if callspec and callspec.params.get("fault") in ("hung", "busy"):
        monkeypatch.setattr(diagnosis, "SUSPICION_SECONDS", 0.5)
        monkeypatch.setattr(self_test, "TEST_SECONDS", 0.5)


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    folder = tmp_path / "request"
    folder.mkdir()
    wav = write_wav(folder / "speech.wav", tone(0.5, 44_100), 44_100)  # for this file, ffmpeg would not run
    ffmpeg_cli("-i", str(wav), str(wav.with_suffix(".flac")))
    return wav.with_suffix(".flac")


@pytest.fixture
def video(speech: Path) -> Path:
    write_video(speech.with_name("face.mp4"), moving_square(10))
    return speech.with_name("face.mp4")


async def decode_speech(path: Path) -> None:
    with pcm_file(path.parent) as pcm_path:
        await decode_audio(path, pcm_path, LIMITS, StageTimer())


async def decode_video(path: Path) -> int:
    video = await probe_video(path, Options(), LIMITS)
    count = 0
    async with aclosing(read_frames(video, 4, StageTimer(), LOGGER, max_frames=100)) as chunks:
        async for frames in chunks:
            count += len(frames)
    return count


async def encode(speech: Path, out: Path | None) -> AsyncIterator[bytes]:
    audio = AudioInput(speech, True, Fraction(1, 2), LIMITS.max_pixels)
    async with VideoEncoder(out, VideoFormat(640, 480, Fraction(25)), audio, Quality.DRAFT, StageTimer()) as encoder:
        for _ in range(12):
            await encoder.write(np.zeros((720, 640), np.uint8))
        await encoder.finish()
        async for chunk in encoder.last_chunks():
            yield chunk


@pytest.mark.parametrize(
    ("fault", "run"),
    [*((fault, PROBE_AUDIO) for fault in sorted(FAULTS)), ("mute", DECODE_AUDIO), ("rubbish", DECODE_AUDIO)],
)
async def test_audio_is_not_blamed_for_a_program_that_fails_on_every_file(
    fake: FakeFfmpeg, speech: Path, fault: str, run: str
) -> None:
    before = children()
    fake.fail(fault, run, IN_MEMORY)
    with pytest.raises(FfmpegFault):
        await decode_speech(speech)
    assert children() == before


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        *((run, "failing") for run in VIDEO_RUNS),
        (PROBE_VIDEO, "rubbish"),
        (DECODE_VIDEO, "mute"),
        pytest.param(PROBE_VIDEO, "mute", marks=pytest.mark.slow),
        pytest.param(LIST_PACKETS, "mute", marks=pytest.mark.slow),
        (LIST_PACKETS, "rubbish"),
        pytest.param(DECODE_VIDEO, "rubbish", marks=pytest.mark.slow),
    ],
)
async def test_a_video_is_not_blamed_for_a_program_that_fails_on_every_file(
    fake: FakeFfmpeg, video: Path, fault: str, run: str
) -> None:
    before = children()
    fake.fail(fault, run, IN_MEMORY)
    with pytest.raises(FfmpegFault):
        await decode_video(video)
    assert children() == before


@pytest.mark.parametrize(
    ("fault", "streamed"), [*((fault, False) for fault in sorted(FAULTS)), ("mute", True), ("rubbish", True)]
)
async def test_an_encoder_that_fails_is_the_machines_fault(
    fake: FakeFfmpeg, speech: Path, fault: str, streamed: bool
) -> None:
    before = children()
    fake.fail(fault, "pipe:0")
    with pytest.raises(MachineFault):
        async for _ in encode(speech, None if streamed else speech.with_name("result.mp4")):
            pass
    assert children() == before
    assert not speech.with_name("result.mp4").exists()


@pytest.mark.parametrize("fault", ["crashed", "failing", "mute", "rubbish"])
async def test_a_file_is_blamed_if_the_program_fails_on_it_only(
    fake: FakeFfmpeg, speech: Path, video: Path, fault: str
) -> None:
    fake.fail(fault, f"file:{speech}")
    with pytest.raises(InvalidField, match="audio_file"):
        await decode_speech(speech)
    fake.fail(fault, f"file:{video}")
    with pytest.raises(InvalidField, match="face_file"):
        await decode_video(video)


async def test_a_slow_file_is_blamed_after_its_deadline(
    fake: FakeFfmpeg, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg.run, "__defaults__", (3.0,))
    fake.fail("busy", f"file:{speech}")
    with pytest.raises(InvalidField, match="audio_file: decoding the audio takes too long"):
        await decode_speech(speech)


async def test_a_decoder_that_is_killed_once_is_the_machines_fault_and_works_again(
    fake: FakeFfmpeg, speech: Path, video: Path
) -> None:
    for run in VIDEO_RUNS:
        fake.fail("killed", run, times=1)
        with pytest.raises(FfmpegFault, match="killed"):
            await decode_video(video)
        assert await decode_video(video) == 10
    for run in AUDIO_RUNS:
        fake.fail("killed", run, times=1)
        with pytest.raises(FfmpegFault, match="killed"):
            await decode_speech(speech)
        await decode_speech(speech)


async def test_a_removed_work_folder_is_the_machines_fault(speech: Path) -> None:
    shutil.rmtree(speech.parent)
    with pytest.raises(StorageFault, match="work folder"):
        await diagnosis.rule_out_machine(speech)


@pytest.mark.parametrize("container", ["mp4", "webm"])
async def test_a_full_disk_under_the_encoder_is_the_machines_fault(speech: Path, container: str) -> None:
    full = speech.with_name(f"full.{container}")
    full.symlink_to("/dev/full")
    audio = AudioInput(speech, True, Fraction(1, 2), LIMITS.max_pixels)
    format_ = VideoFormat(64, 48, Fraction(25), alpha=container == "webm")
    encoder = VideoEncoder(full, format_, audio, Quality.DRAFT, StageTimer())
    with pytest.raises(StorageFault, match="no space left"):
        async with encoder:
            for _ in range(12):
                await encoder.write(np.zeros((120 if format_.alpha else 72, 64), np.uint8))
            await encoder.finish()


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
async def test_a_full_disk_under_decoded_audio_is_the_machines_fault(speech: Path, suffix: str) -> None:
    full = speech.with_name("full.f32")
    full.symlink_to("/dev/full")
    with pytest.raises(StorageFault, match="no space left"):
        await decode_audio(speech.with_suffix(suffix), full, LIMITS, StageTimer())


async def test_metadata_of_a_file_that_reads_like_an_error_is_not_one(speech: Path) -> None:
    titled = speech.with_name("titled.mka")
    title = "title=a\nb: No space left on device"
    ffmpeg_cli("-i", str(speech), "-metadata", title, "-c", "copy", str(titled))
    _, stderr = await ffmpeg.run(["-nostdin", "-i", f"file:{titled}", "-f", "null", "-"])
    assert "No space left on device" in stderr
    await decode_speech(titled)
