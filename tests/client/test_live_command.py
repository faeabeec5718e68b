"""The command `avatar live`: speech from a file or a pipe, frames into a folder, a file or a pipe."""

from __future__ import annotations

import io
import json
import sys
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avatar_client import _cli, _live_cli
from lipsync import tensors
from tests.client.fake_server import FakeServer, error_response
from tests.client.test_render import script_of

LEVELS = np.repeat(np.arange(1, 11, dtype=np.int16) * 1280, 640)  # 10 frames, each louder than the one before
JPEGS = [b"JPEG" + bytes([10 * n]) for n in range(1, 11)]  # that the fake makes of them


@pytest.fixture
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVATAR_SERVER", server.address)
    (tmp_path / "face.jpg").write_bytes(b"a face")
    return write(tmp_path / "speech.wav", LEVELS[:-100])


def write(path: Path, samples: np.ndarray, channels: int = 1, width: int = 2, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert _cli.main(["live", "face.jpg", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("existing", [True, False])
def test_frames_are_written_into_a_folder(
    existing: bool, speech: Path, tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ("some.frames" if existing else "new/frames")
    if existing:
        folder.mkdir()
    document = run(capsys, str(speech), "-o", str(folder), "--set", "pads=0,20,0,0")
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == JPEGS
    assert {path.name for path in folder.iterdir()} == {f"{n:06d}.jpg" for n in range(10)}
    assert (document["frames"], document["fps"], document["width"], document["error"]) == (10, "25", 6, None)
    assert document["first_frame"] > 0
    assert server.requests[0].inputs["pads"] == "0,20,0,0"


def test_frames_are_written_into_a_file_or_to_standard_output(
    speech: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert _cli.main(["live", "face.jpg", str(speech), "-o", "a.mjpeg"]) == 0
    assert (tmp_path / "a.mjpeg").read_bytes() == b"".join(JPEGS)
    assert b"a.mjpeg: 10 frames of 6x4 at 25 fps, the first after " in capfdbinary.readouterr().out
    assert _cli.main(["live", "face.jpg", str(speech), "-o", "-", "--realtime"]) == 0
    frames, words = capfdbinary.readouterr()
    assert frames == b"".join(JPEGS) and b"10 frames" in words


def test_the_speech_may_come_from_standard_input(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(LEVELS.astype("<i2").tobytes() + b"!")))
    assert run(capsys, "-", "-o", "a.mjpeg")["frames"] == 10
    assert (tmp_path / "a.mjpeg").read_bytes() == b"".join(JPEGS)


def test_two_channels_become_one(speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(speech, np.stack((LEVELS, LEVELS), axis=1), channels=2)
    assert run(capsys, str(speech), "-o", "a.mjpeg")["frames"] == 10
    assert (tmp_path / "a.mjpeg").read_bytes() == b"".join(JPEGS)


def test_what_is_wrong_is_told_in_one_line_and_leaves_no_file(
    speech: Path, tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "wide.wav", LEVELS.astype(np.int32), width=4)
    (tmp_path / "none.wav").write_bytes(b"no sound")
    server.live = script_of(error_response("400 face_file: not an image"))
    for name, words in {
        "wide.wav": "speech: a WAV of 16 bits and 8000 to 48000 Hz expected, got 32 bits",
        "none.wav": "speech: a WAV of 16 bits expected",
        "missing.wav": "missing.wav: No such file or directory",
        "speech.wav": "face_file: not an image",
    }.items():
        assert _cli.main(["live", "face.jpg", name, "-o", "a.mjpeg", "--no-progress"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert not (tmp_path / "a.mjpeg").exists()


def test_a_pipe_that_fails_ends_the_session(
    speech: Path, server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(read=read)))
    assert _cli.main(["live", "face.jpg", "-", "-o", "a.mjpeg"]) == 1
    assert "Input/output error" in capsys.readouterr().err
    assert server.cancelled.wait(30)


@pytest.mark.parametrize("wrong", [("--set", "quality=draft"), ("--rate", "7000")])
def test_wrong_usage_exits_with_2(speech: Path, wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        _cli.main(["live", "face.jpg", str(speech), "-o", "a.mjpeg", *wrong])
    assert end.value.code == 2
    assert "avatar live: error: " in capsys.readouterr().err


def test_the_rates_are_those_of_the_service() -> None:
    assert (_live_cli.MIN_RATE, _live_cli.MAX_RATE) == tensors.LIVE_SAMPLE_RATES
