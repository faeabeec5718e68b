"""Threads are a share: of the cores of this process, among its running jobs."""

from contextlib import ExitStack

import cv2
import pytest

from avatar.load import LOAD
from avatar.media import ffmpeg_args, threads
from avatar.media.codecs import Codec, codec_args
from avatar.options import Quality
from tests.avatar.media.test_ffmpeg_args import FILE, MAX_PIXELS, value


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(threads, "usable_cores", lambda: 16)
    return 16


@pytest.mark.parametrize(("jobs", "encoder", "decoder"), [(0, 4, 8), (1, 4, 8), (2, 2, 4), (5, 1, 1), (16, 1, 1)])
def test_a_job_gets_its_share_of_the_cores(cores: int, jobs: int, encoder: int, decoder: int) -> None:
    with ExitStack() as running:
        for _ in range(jobs):
            running.enter_context(LOAD.job())
        assert threads.encoder_threads() == encoder
        assert threads.decoder_threads() == decoder
        for codec in (Codec.X264, Codec.VP9):
            assert value(codec_args(codec, Quality.STANDARD), "-threads") == str(encoder)
        args = ffmpeg_args.decode_video_args(FILE, MAX_PIXELS, [])
        assert value(args, "-threads") == value(args, "-filter_threads") == str(decoder)
        assert args.index("-threads") < args.index("-i")  # of the decoder


def test_one_core_is_one_thread_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 1)
    assert threads.encoder_threads() == threads.decoder_threads() == 1


def test_a_probe_decodes_its_frame_with_one_thread() -> None:
    args = ffmpeg_args.probe_video_args(FILE, MAX_PIXELS)
    assert value(args, "-threads") == "1"
    assert args.index("-threads") < args.index("-i")


@pytest.mark.parametrize(("cores", "limit"), [(1, 1), (2, 1), (4, 1), (16, 4)])
def test_opencv_takes_a_part_of_the_cores(monkeypatch: pytest.MonkeyPatch, cores: int, limit: int) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    before = cv2.getNumThreads()
    try:
        threads.limit_opencv()
        assert cv2.getNumThreads() == limit
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize(("size", "frames"), [((640, 480), 4), ((1280, 720), 3), ((1920, 1080), 1), ((7680, 4320), 1)])
def test_a_thread_takes_several_small_frames_at_once_and_large_ones_singly(size: tuple[int, int], frames: int) -> None:
    assert threads.frames_per_turn(*size) == frames
