"""Streams with many or large requests: queue and memory stay within their limits."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import psutil

from avatar.settings import LiveSettings
from lipsync.tensors import SEQUENCE_IDLE_SECONDS
from tests.support.live_streams import (
    LONG_SPEECH,
    SPEECH,
    Stream,
    live_request,
    run_session,
    sequences,
    stub_processes,
)
from tests.support.media import write_video
from tests.support.triton_server import Served
from tests.support.triton_streams import make_request, send_request


def _mib(served: Served, model: str) -> int:
    """Return the private memory of a model's process, in MiB."""
    for pid in stub_processes(served):
        process = psutil.Process(pid)
        if f"/{model}/1/" in process.cmdline()[1]:
            return int(process.memory_full_info().uss) >> 20
    raise LookupError(model)


def test_the_queue_of_a_session_is_bounded_and_does_not_block_other_sessions(
    served: Served, face: bytes, sequence: int
) -> None:
    flood = Stream(served)
    flood.send(live_request(sequence, "first", start=True, face_file=face, format="mouth"))
    flood.wait_until_finished("first")
    # the work on the first piece takes longer than the others need to arrive
    flood.send(live_request(sequence, "piece-0", audio=np.resize(LONG_SPEECH, 480_000)))
    flood.send(*(live_request(sequence, f"piece-{n}", audio=SPEECH[:320]) for n in range(1, 2500)))
    flood.wait_until(lambda: any(responses.error.startswith("503 ") for responses in list(flood.responses.values())))
    assert run_session(served, face, next(sequences)).summary
    flood.end()
    assert len(flood.finished) == 2501


def test_files_of_rejected_calls_are_not_kept(served: Served, face: bytes, recording: bytes) -> None:
    zeros = bytes(64 << 20)
    rejected: tuple[dict[str, bytes | str], ...] = (
        {"face_file": zeros, "audio_file": recording, "pads": "9" * 2000},
        {"face_file": face, "audio_file": zeros},
        {"face_file": zeros, "audio_file": recording, "fps": "x"},
    )
    send_request(served.stub, make_request("avatar", **rejected[0]))
    before = _mib(served, "avatar")
    for inputs in (*rejected, *rejected):
        assert send_request(served.stub, make_request("avatar", **inputs)).error.startswith("400 ")
    assert _mib(served, "avatar") < before + 64


def test_only_the_audio_of_a_queued_request_is_kept(served: Served, face: bytes, sequence: int) -> None:
    image = cv2.resize(cv2.imdecode(np.frombuffer(face, np.uint8), cv2.IMREAD_COLOR), None, fx=4, fy=4)
    large = cv2.imencode(".png", image)[1].tobytes()  # so that the long pieces are in work until the end of the test
    pieces = [f"piece-{n}" for n in range(6)]
    stream = Stream(served)
    stream.send(live_request(sequence, "first", start=True, face_file=large, format="jpeg"))
    stream.wait_until_finished("first")
    before = _mib(served, "live")
    stream.send(*(live_request(sequence, f"long-{n}", audio=np.resize(LONG_SPEECH, 480_000)) for n in range(4)))
    stream.wait_until(lambda: bool(stream.responses["long-0"].frames))
    stream.send(*(live_request(sequence, name, audio=SPEECH, background_file=bytes(32 << 20)) for name in pieces))
    stream.send(make_request("live", "after"))  # Triton rejects it after it has accepted the ones before it
    stream.wait_until_finished("after")
    time.sleep(0.3)
    stream.wait_until(lambda: _mib(served, "live") < before + 96)  # the model may still be reading the last ones
    assert not {*pieces} & {*stream.finished}  # they are still queued
    stream.cancel()


def test_the_face_crops_of_a_video_count_towards_the_memory_limit(
    served: Served, sequence: int, tmp_path: Path
) -> None:
    frames = LiveSettings().live_memory_mib * (1 << 20) // (96 * 96 * 3) + 1
    loop = ["-vf", f"loop={frames}:1"]
    video = write_video(tmp_path / "tiny.mp4", np.zeros((1, 16, 16, 3), np.uint8), extra=loop).read_bytes()
    request = live_request(sequence, "first", start=True, face_file=video, avatarFileType="mp4", box="0,16,0,16")
    assert send_request(served.stub, request).error.startswith("413 face_file: too large for a live session")


def test_a_silent_session_stays_in_tritons_table(served: Served, face: bytes, sequence: int) -> None:
    """Triton alone would forget it after three seconds: `max_sequence_idle_microseconds` of the model."""
    stream = Stream(served)
    stream.send(live_request(sequence, "first", start=True, face_file=face))
    stream.wait_until_finished("first")
    time.sleep(SEQUENCE_IDLE_SECONDS - 3)
    stream.send(live_request(sequence, "last", end=True, audio=SPEECH))
    stream.end()
    assert stream.responses["last"].error == ""
    assert stream.responses["last"].summary
