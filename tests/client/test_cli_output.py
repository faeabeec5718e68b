"""The output of the command `avatar` for programs and for people: JSON, statuses, help, colors, addresses."""

from __future__ import annotations

import argparse
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import avatar_client
from avatar_client import _cli, _cli_parser, _cli_types, _console, _options
from gateway.app import create_app
from gateway.settings import Settings
from tests.client import fake_server as fake
from tests.client.fake_gateway import FakeGateway
from tests.client.fake_http import FakeHttp
from tests.client.fake_server import FakeServer
from tests.client.test_cli import argv
from tests.client.test_progress_bar import Terminal
from tests.client.test_render import script_of

PARSER = _cli._parser()
(COMMANDS,) = (action.choices for action in PARSER._actions if isinstance(action, argparse._SubParsersAction))
ERROR = {"code", "detail", "status", "retry_after"}


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """Run a command with `--json`; return its exit status and what it printed, which is one line."""
    try:
        status = _cli.main([*arguments, "--json"])
    except SystemExit as end:
        status = int(end.code or 0)
    output = capsys.readouterr()
    assert output.err == ""
    (line,) = output.out.splitlines()
    return status, json.loads(line)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_60_columns_and_has_the_exit_statuses(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as end:
        _cli.main([*([name] if name else []), "--help"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 60] == []
    assert "exit status:" in lines
    for status, text in _cli_parser.STATUSES.items():
        assert f"  {status:<3}  {text}" in lines


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json(name: str) -> None:
    assert "--json" in COMMANDS[name].format_usage()


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        _cli.main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"avatar {avatar_client.__version__}\n")


def test_a_video_is_one_json_object(folder: Path, target: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, document = run_json(capsys, *argv(folder, *target))
    assert status == 0
    assert document.keys() == {
        *("out", "frames", "container", "stand_ins", "notes", "frames_without_face", "fps", "duration", "encoder"),
        *("decoder", "seconds", "error", "warnings"),
    }
    assert document["out"] == str(folder / "out" / "out.mp4")
    assert document["frames"] in {3, 75}
    assert document["stand_ins"][0] == "s3fd" and "STAND-INS" in document["warnings"][0]
    assert document["error"] is None
    assert document["seconds"]["detect"] > 0


def test_an_error_is_one_json_object(
    folder: Path,
    server: FakeServer,
    gateway: FakeGateway,
    target: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.avatar = script_of(fake.error_response("400 face_file: not an image"))
    gateway.reject(400, "face_file: not an image")
    expected = {"code": "invalid_request", "detail": "face_file: not an image", "status": 400, "retry_after": None}
    assert run_json(capsys, *argv(folder, *target)) == (1, {"error": expected, "warnings": []})


def test_an_error_that_will_pass_says_when(
    folder: Path,
    gateway: FakeGateway,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gateway.reject(503, "the queue is full", **{"Retry-After": "7"})
    status, document = run_json(capsys, *argv(folder, "--url", gateway.url))
    error = {"code": "unavailable", "detail": "the queue is full", "status": 503, "retry_after": 7.0}
    assert (status, document["error"]) == (1, error)


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("render", "none", "none", "-o", "out.mp4"), 1, "file"),
        (("render", "none"), 2, "usage"),
        (("submit", "none"), 2, "usage"),
        (("status", "id", "--url", "http://"), 2, "usage"),
        (("status", "id", "--url", "127.0.0.1:1", "--timeout", "1"), 1, "unavailable"),
        (("nothing",), 2, "usage"),
    ],
)
def test_other_failures_are_json_too(
    arguments: tuple[str, ...],
    status: int,
    code: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("avatar_client._http.RECONNECT_SECONDS", 0.01)
    found, document = run_json(capsys, *arguments)
    assert (found, document["error"]["code"]) == (status, code)
    assert document["error"].keys() == ERROR
    assert list(tmp_path.iterdir()) == []


def test_with_the_video_on_standard_output_the_json_is_on_the_other(
    folder: Path,
    server: FakeServer,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    arguments = ["render", str(folder / "face.jpg"), str(folder / "speech.wav"), "-o", "-", "--json"]
    assert _cli.main([*arguments, "--server", server.address]) == 0
    video, words = capfdbinary.readouterr()
    assert video == (folder / "face.jpg").read_bytes() + (folder / "speech.wav").read_bytes()
    assert json.loads(words)["out"] == "-"


def test_colors_are_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert _console.Style(Terminal())("ok", _console.GREEN) == "\x1b[32mok\x1b[0m"
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert _console.Style(Terminal())("ok", _console.GREEN) == "ok"
    monkeypatch.setenv("NO_COLOR", "")  # as https://no-color.org says, only one that is not empty counts
    assert _console.Style(Terminal())("ok", _console.GREEN) != "ok"


def test_other_outputs_have_no_colors(folder: Path, target: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(argv(folder, *target)) == 0
    output = capsys.readouterr()
    assert "STAND-INS" in output.err and "\x1b" not in output.out + output.err


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", "localhost:8001"),
        ("localhost:9", "localhost:9"),
        ("a, b:9 ,[::1]", "a:8001,b:9,[::1]:8001"),
        ("::1", "[::1]:8001"),
        ("[::1]:9", "[::1]:9"),
        ("dns:///tritons", "dns:///tritons:8001"),
        ("dns:///tritons:9", "dns:///tritons:9"),
        ("unix:/run/triton", "unix:/run/triton"),
    ],
)
def test_a_server_without_a_port_gets_that_of_triton(text: str, address: str) -> None:
    assert _cli_types.address(text) == address


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost", "http://localhost:16000"),
        ("127.0.0.1:16000", "http://127.0.0.1:16000"),
        ("[::1]:9", "http://[::1]:9"),
        ("avatar.example/path", "http://avatar.example/path"),
        ("https://avatar.example", "https://avatar.example"),
    ],
)
def test_a_gateway_without_a_scheme_gets_http_and_its_port(text: str, url: str) -> None:
    assert _cli_types.url(text) == url


def test_variables_name_the_servers(
    folder: Path,
    server: FakeServer,
    gateway: FakeGateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AVATAR_URL", gateway.url.removeprefix("http://"))
    assert _cli.main(argv(folder)) == 0  # only the gateway is known
    assert gateway.path == "/" and not server.requests
    monkeypatch.setenv("AVATAR_SERVER", server.address)
    assert _cli.main(argv(folder)) == 0  # both are known: gRPC shows the progress
    assert len(server.requests) == 1
    gateway.path = ""
    assert _cli.main(argv(folder, "--url", gateway.url)) == 0
    assert gateway.path == "/" and len(server.requests) == 1
    monkeypatch.setenv("AVATAR_SERVER", "http://here")
    assert _cli.main(argv(folder)) == 2
    assert "AVATAR_SERVER: host:port expected" in capsys.readouterr().err


@pytest.fixture
def triton_http() -> Iterator[str]:
    """The URL of a server that answers as Triton's port for HTTP does."""
    with FakeHttp() as server:
        yield server.url


@pytest.fixture(scope="module")
def openapi() -> Iterator[str]:
    """The URL of a server that describes itself as the gateway does."""
    with FakeHttp({"/openapi.json": (200, create_app(Settings()).openapi())}) as server:
        yield server.url


def test_wrong_ports_are_named(
    folder: Path,
    server: FakeServer,
    gateway: FakeGateway,
    triton_http: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases = {
        ("--url", triton_http): r"Triton's port for HTTP; the gateway is usually on port 16000",
        ("--url", server.address): r"speaks gRPC, not HTTP: .* the gateway is usually on port 16000",
        ("--server", gateway.url.removeprefix("http://")): r"speaks HTTP, not gRPC: .* usually 8001",
    }
    for arguments, words in cases.items():
        assert _cli.main(argv(folder, *arguments, "--no-progress")) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(words, line), line
    assert list((folder / "out").iterdir()) == []


def test_a_module_can_be_run_too() -> None:
    with pytest.raises(SystemExit) as end, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["avatar", "--version"])
        runpy.run_module("avatar_client", run_name="__main__")
    assert end.value.code == 0


def test_the_options_are_those_that_the_gateway_describes(openapi: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, document = run_json(capsys, "options", "--url", openapi)
    assert (status, {row["name"] for row in document["options"]}) == (0, _options.RENDER_NAMES - {"background_file"})
    (face,) = (row for row in document["options"] if row["name"] == "face")
    assert face["default"] == "best" and "largest" in face["description"]


def test_some_options_are_printed_for_a_person(
    openapi: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert _cli.main(["options", "blend", "quality", "--url", openapi]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "blend: original, feather (default original)"
    assert max(map(len, lines)) <= 60
    with pytest.raises(SystemExit):
        _cli.main(["options", "blnd", "--url", openapi])
    assert "unknown option blnd; the options are " in capsys.readouterr().err


def test_a_gateway_that_does_not_describe_itself_is_told(triton_http: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main(["options", "--url", triton_http]) == 1
    assert "AVATAR_DOCS=false" in capsys.readouterr().err
