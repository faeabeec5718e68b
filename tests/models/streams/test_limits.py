"""Streams that ask for much: queue and memory stay within their limits."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import psutil
from tritonclient.grpc import service_pb2 as pb

from avatar.settings import LiveSettings
from lipsync.tensors import SEQUENCE_IDLE_SECONDS
from tests.support.live_streams import (
    LONG,
    SPEECH,
    Stream,
    live,
    sequences,
    spoken,
    stub_processes,
)
from tests.support.media import write_video
from tests.support.triton_server import Served
from tests.support.triton_streams import ask, request


def _mib(served: Served, model: str) -> int:
    """What a model's process has for itself, shared memory not counted."""
    for pid in stub_processes(served):
        process = psutil.Process(pid)
        if f"/{model}/1/" in process.cmdline()[1]:
            return int(process.memory_full_info().uss) >> 20
    raise LookupError(model)


def test_a_flood_of_pieces_is_bounded_and_does_not_hold_up_others(served: Served, face: bytes, sequence: int) -> None:
    flood = Stream(served)
    flood.send(live(sequence, "first", start=True, face_file=face, format="mouth"))
    flood.until_over("first")
    flood.send(*(live(sequence, f"piece-{n}", audio=SPEECH[:320]) for n in range(2500)))
    flood.until(lambda: any(answers.error.startswith("503 ") for answers in list(flood.answers.values())))
    assert spoken(served, face, next(sequences)).summary
    flood.end()
    assert len(flood.over) == 2501


def test_files_of_refused_calls_are_not_kept(served: Served, face: bytes, recording: bytes) -> None:
    zeros = bytes(64 << 20)
    refused: tuple[dict[str, bytes | str], ...] = (
        {"face_file": zeros, "audio_file": recording, "pads": "9" * 2000},
        {"face_file": face, "audio_file": zeros},
        {"face_file": zeros, "audio_file": recording, "fps": "x"},
    )
    ask(served.stub, request("avatar", **refused[0]))
    before = _mib(served, "avatar")
    for inputs in (*refused, *refused):
        assert ask(served.stub, request("avatar", **inputs)).error.startswith("400 ")
    assert _mib(served, "avatar") < before + 64


def test_of_a_piece_only_its_speech_is_kept(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=face, format="mouth"))
    stream.until_over("first")
    before = _mib(served, "live")
    stream.send(live(sequence, "long", audio=np.resize(LONG, 480_000)))
    stream.until(lambda: bool(stream.answers["long"].frames))
    stream.send(*(live(sequence, f"piece-{n}", audio=SPEECH, background_file=bytes(32 << 20)) for n in range(6)))
    stream.send(request("live", "behind"))  # Triton refuses it, once it has taken the ones before
    stream.until_over("behind")
    time.sleep(0.3)
    assert _mib(served, "live") < before + 96
    stream.cancel()


def test_the_crops_of_a_tiny_video_count_too(served: Served, sequence: int, tmp_path: Path) -> None:
    frames = LiveSettings().live_memory_mib * (1 << 20) // (96 * 96 * 3) + 1
    loop = ["-vf", f"loop={frames}:1"]
    video = write_video(tmp_path / "tiny.mp4", np.zeros((1, 16, 16, 3), np.uint8), extra=loop).read_bytes()
    asked = live(sequence, "first", start=True, face_file=video, avatarFileType="mp4", box="0,16,0,16")
    assert ask(served.stub, asked).error.startswith("413 face_file: too large for a live session")


def test_triton_keeps_a_session_for_longer_than_its_longest_silence(served: Served) -> None:
    """Its clock begins with a request, ours when the request is answered: to begin, or half a minute of speech, may
    take longer than a silence may last."""
    config = served.stub.ModelConfig(pb.ModelConfigRequest(name="live")).config.sequence_batching
    assert config.max_sequence_idle_microseconds >= 6 * SEQUENCE_IDLE_SECONDS * 1_000_000
