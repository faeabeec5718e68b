"""The commands `avatar doctor`, `preview` and `options` against the real servers."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avatar_client import AvatarClient, _cli
from embedded.server import Triton
from tests.support.gateway_process import Gateway


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Return the JSON of a command that is done without an error."""
    assert _cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_doctor_finds_no_problem_and_names_the_stand_ins(
    triton: Triton, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AVATAR_TRITON_TOKEN", triton.token)
    document = run(capsys, "doctor", "--url", gateway.url, "--server", triton.grpc_address, "--timeout", "60")
    checks = {check["name"]: check for check in document["checks"]}
    assert document["ok"] and checks["gateway"]["details"]["ready"]
    assert checks["weights"]["level"] == "warning"
    assert checks["weights"]["details"]["stand_ins"] == ["s3fd", "wav2lip", "wav2lip_gan", "segmentation"]
    assert checks["models"]["details"]["wav2lip"]["versions"] == ["1"]
    assert checks["memory"]["details"] == {"shared": True, "reason": "mapped"}


def test_the_ports_of_triton_are_told_from_the_gateway(
    triton: Triton, gateway: Gateway, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert triton.http_address
    face = str(samples / "face.png")
    cases = {
        ("status", "id", "--url", triton.http_address): "Triton's port for HTTP",
        ("status", "id", "--url", triton.grpc_address): "speaks gRPC, not HTTP",
        ("preview", face, "--server", gateway.url.removeprefix("http://")): "speaks HTTP, not gRPC",
        ("preview", face, "--server", triton.http_address): "port for gRPC is usually 8001",
    }
    for arguments, words in cases.items():
        assert _cli.main([*arguments, "--timeout", "60"]) == 1
        assert words in capsys.readouterr().err


def test_the_options_are_listed(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = run(capsys, "options", "blend", "--url", gateway.url)["options"]
    assert row["choices"] == ["original", "feather"]


@pytest.mark.parametrize(
    "options",
    [{}, {"pads": "5,20,-3,4"}, {"crop": "20,-1,30,-1", "max_height": "200"}, {"rotate": "true", "resize_factor": "2"}],
)
def test_the_box_of_the_preview_is_that_of_a_live_session(
    options: dict[str, str], triton: Triton, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face, out = samples / "face.png", tmp_path / "preview.png"
    chosen = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
    document = run(capsys, "preview", str(face), "-o", str(out), "--server", triton.grpc_address, *chosen)
    (shown,) = document["frames"]
    with AvatarClient(triton.grpc_address) as client, client.live(face, **options) as session:  # type: ignore[arg-type]
        session.send(np.zeros(640, np.int16))
        session.end()
        frame = next(iter(session))
        size = session.info.width, session.info.height
    top, bottom, left, right = shown["box"]
    assert (left, top, right, bottom) == frame.box
    assert (document["width"], document["height"]) == size
    assert out.stat().st_size > 1000


def test_a_live_session_makes_one_frame_for_each_40_ms_of_speech(
    triton: Triton, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = tmp_path / "speech.wav"
    with wave.open(str(samples / "speech.wav"), "rb") as source, wave.open(str(speech), "wb") as short:
        short.setparams(source.getparams())
        short.writeframes(source.readframes(2 * source.getframerate()))
    arguments = ("live", str(samples / "face.png"), str(speech), "-o", str(tmp_path / "frames"))
    document = run(capsys, *arguments, "--server", triton.grpc_address, "--set", "max_height=240")
    files = sorted((tmp_path / "frames").iterdir())
    assert document["frames"] == len(files) and document["fps"] == "25"
    assert len(files) in (51, 52)  # as docs/grpc/live.md says of the end
    assert all(file.read_bytes().startswith(b"\xff\xd8") for file in files)
