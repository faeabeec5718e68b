"""A GPU encodes and decodes where it is found to work, and the CPU where it is not, or no longer."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.errors import FfmpegFault
from avatar.limits import LIMITS
from avatar.media import ffmpeg, hardware
from avatar.media.codecs import Codec
from avatar.media.decoding import read_frames
from avatar.media.encoder import VideoEncoder
from avatar.media.ffmpeg_args import AudioInput, VideoFormat
from avatar.media.hardware import HARDWARE
from avatar.media.start import prepare
from avatar.media.video import Video
from avatar.options import Options, Quality
from avatar.settings import JobSettings
from avatar.testing import FakeInference
from avatar.timing import StageTimer
from lipsync.yuv import to_yuv420
from tests.support.fake_gpu import LOST_FRAMES, FakeGpu, write_fake_gpu
from tests.support.media import (
    Frames,
    children,
    find_square,
    moving_square,
    probe_video,
    read_video,
    request,
    run,
    tone,
    write_still,
    write_wav,
)
from tests.support.media import ffmpeg as ffmpeg_cli

FORMAT = VideoFormat(640, 480, Fraction(25))
SQUARE = moving_square(24, FORMAT.width, FORMAT.height)  # several times what a pipe holds


@pytest.fixture
async def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeGpu]:
    """A GPU that works; it is not chosen yet."""
    gpu = write_fake_gpu(tmp_path / "bin")
    monkeypatch.setenv("PATH", gpu.path)
    ffmpeg.executable.cache_clear()
    yield gpu
    ffmpeg.executable.cache_clear()
    await HARDWARE.choose("x264", "cpu")


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "speech.wav", tone(0.96))


async def encode(speech: Path, frames: Frames, *, streamed: bool = False) -> tuple[bytes, Codec]:
    path = None if streamed else speech.with_name("result.mp4")
    height, width = frames.shape[1:3]
    audio = AudioInput(speech, True, Fraction(len(frames), 25), LIMITS.max_pixels)
    encoder = VideoEncoder(path, VideoFormat(width, height, Fraction(25)), audio, Quality.STANDARD, StageTimer())
    chunks: list[bytes] = []
    async with encoder:
        for frame in frames:
            await encoder.write(to_yuv420(frame))
            chunks += await encoder.ready_chunks()
        await encoder.finish()
        chunks += [chunk async for chunk in encoder.last_chunks()]
    return path.read_bytes() if path else b"".join(chunks), encoder.codec


async def probe(folder: Path, *arguments: str, name: str = "face.mp4", frames: int = 20) -> Video:
    """Return a video of the moving square, encoded with these arguments; probe it."""
    height, width = SQUARE.shape[1:3]
    raw = ["-f", "rawvideo", "-pixel_format", "bgr24", "-video_size", f"{width}x{height}", "-framerate", "25"]
    encoding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", *arguments]
    ffmpeg_cli(*raw, "-i", "pipe:0", *encoding, "-y", str(folder / name), data=SQUARE[:frames].tobytes())
    return await probe_video(folder / name, Options(), LIMITS)


async def decode(video: Video) -> Frames:
    async with aclosing(read_frames(video, 4, StageTimer(), ffmpeg.logger, max_frames=100)) as chunks:
        return np.concatenate([frames async for frames in chunks])


async def test_without_a_gpu_the_real_program_chooses_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    before = children()
    await HARDWARE.choose("auto", "auto")
    assert HARDWARE.codec(FORMAT) is Codec.X264
    assert not (await probe(tmp_path)).on_gpu
    assert children() == before


async def test_a_process_that_requires_a_gpu_does_not_start_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert await prepare(JobSettings(encoder="x264", decoder="cpu")) == ""
    assert "NVENC is required by the settings" in await prepare(JobSettings(encoder="nvenc"))
    assert "NVDEC is required by the settings" in await prepare(JobSettings(decoder="cuda"))
    assert HARDWARE.codec(FORMAT) is Codec.X264


async def test_a_gpu_is_used_if_its_trial_passes_and_the_settings_allow_it(gpu: FakeGpu, tmp_path: Path) -> None:
    for encoder, decoder in (("auto", "auto"), ("nvenc", "cuda"), ("x264", "cuda"), ("nvenc", "cpu")):
        await HARDWARE.choose(encoder, decoder)
        assert (HARDWARE.codec(FORMAT) is Codec.NVENC) == (encoder != "x264")
        assert (await probe(tmp_path)).on_gpu == (decoder != "cpu")


async def test_only_formats_that_every_card_takes_are_encoded_on_it(gpu: FakeGpu) -> None:
    await HARDWARE.choose("auto", "cpu")
    sizes = {(1920, 1080): True, (1080, 1920): True, (128, 720): False, (640, 48): False, (5120, 2160): False}
    for (width, height), fits in sizes.items():
        codec = HARDWARE.codec(VideoFormat(width, height, Fraction(25)))
        assert codec is (Codec.NVENC if fits else Codec.X264)
    assert HARDWARE.codec(VideoFormat(640, 480, Fraction(25), alpha=True)) is Codec.VP9


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["-flags", "+ilme+ildct", "-x264-params", "tff=1"], "interlaced.mp4"),
        (["-pix_fmt", "yuv444p"], "444.mp4"),
        (["-pix_fmt", "yuv420p10le"], "10-bit.mp4"),
        (["-c:v", "mpeg4", "-preset", "0"], "mpeg4.avi"),
        (["-c:v", "libvpx-vp9", "-cpu-used", "8", "-pix_fmt", "yuva420p"], "alpha.webm"),
        (["-c:v", "libvpx-vp9", "-cpu-used", "8", "-vf", "crop=159:119:exact=1"], "odd.webm"),
    ],
)
async def test_unusual_videos_are_decoded_by_the_cpu(
    gpu: FakeGpu, tmp_path: Path, arguments: list[str], name: str
) -> None:
    await HARDWARE.choose("x264", "cuda")
    assert not (await probe(tmp_path, *arguments, name=name, frames=5)).on_gpu


async def test_a_frame_is_encoded_and_decoded_on_the_gpu(gpu: FakeGpu, tmp_path: Path, speech: Path) -> None:
    await HARDWARE.choose("auto", "auto")
    video = await probe(tmp_path)
    assert len(await decode(video)) == 20
    assert video.decoded_by == "cuda"
    assert "-hwaccel cuda" in gpu.runs[-1]
    _, codec = await encode(speech, SQUARE[:10])
    assert codec is Codec.NVENC
    assert "h264_nvenc" in gpu.runs[-1]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("frames", [SQUARE, SQUARE[:12, :64, :160]], ids=["more than a pipe", "less than a pipe"])
async def test_x264_replaces_a_gpu_without_a_free_session(
    gpu: FakeGpu, speech: Path, frames: Frames, streamed: bool
) -> None:
    await HARDWARE.choose("x264", "cpu")
    expected, _ = await encode(speech, frames, streamed=streamed)
    await HARDWARE.choose("auto", "cpu")
    gpu.become("full")
    before = children()
    result, codec = await encode(speech, frames, streamed=streamed)
    assert codec is Codec.X264
    assert result == expected
    assert children() == before
    assert sum("h264_nvenc" in run for run in gpu.runs) == 2  # the trial and this job
    assert HARDWARE.codec(FORMAT) is Codec.X264  # the next job does not try


async def test_the_gpu_is_tried_again_after_a_while(
    gpu: FakeGpu, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "RETRY_SECONDS", 0.0)
    await HARDWARE.choose("auto", "cpu")
    gpu.become("full")
    await encode(speech, SQUARE[:5])
    gpu.become("work")
    assert (await encode(speech, SQUARE[:5]))[1] is Codec.NVENC


async def test_a_gpu_that_is_lost_while_it_encodes_is_a_fault_of_the_machine(gpu: FakeGpu, speech: Path) -> None:
    await HARDWARE.choose("auto", "cpu")
    gpu.become("lost")
    before = children()
    with pytest.raises(FfmpegFault, match="the hardware encoder failed") as caught:
        await encode(speech, SQUARE)
    assert caught.value.status == 503
    assert not speech.with_name("result.mp4").exists()
    assert children() == before
    assert (await encode(speech, SQUARE[:5]))[1] is Codec.X264


async def test_the_cpu_decodes_the_frames_that_a_lost_gpu_does_not(gpu: FakeGpu, tmp_path: Path) -> None:
    expected = await decode(await probe(tmp_path))
    await HARDWARE.choose("x264", "auto")
    video = await probe(tmp_path)
    gpu.become("lost")
    np.testing.assert_array_equal(await decode(video), expected)
    assert len(expected) == 20
    assert len(expected) > LOST_FRAMES
    assert video.decoded_by == "cpu"
    assert not (await probe(tmp_path)).on_gpu  # nor does it decode the next video


async def test_the_cpu_decodes_every_second_frame_after_the_gpu_is_lost(gpu: FakeGpu, tmp_path: Path) -> None:
    await HARDWARE.choose("x264", "auto")
    video = await probe(tmp_path)
    expected = (await decode(video))[3::2][:8]
    video = await probe(tmp_path)
    gpu.become("lost")
    chunks = read_frames(video, 2, StageTimer(), ffmpeg.logger, first=3, step=2, max_frames=8)
    async with aclosing(chunks):
        np.testing.assert_array_equal(np.concatenate([frames async for frames in chunks]), expected)


async def test_the_result_names_what_encoded_and_decoded_it(gpu: FakeGpu, tmp_path: Path, speech: Path) -> None:
    await probe(tmp_path)
    write_still(tmp_path / "face.png", 320, 240)
    made: list[tuple[str, str]] = []
    for encoder in ("x264", "auto"):
        await HARDWARE.choose(encoder, "cpu" if encoder == "x264" else "auto")
        for face in ("face.png", "face.mp4"):
            still = face.endswith("png")
            result = await run(request(tmp_path, tmp_path / face, speech, still=still), FakeInference(find_square))
            assert result.path
            assert len(read_video(result.path)) == 24
            made.append((result.encoder, result.decoder))
    assert made == [("x264", ""), ("x264", "cpu"), ("nvenc", ""), ("nvenc", "cuda")]
