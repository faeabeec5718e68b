"""`python -m demo`: its exit status, its output, the files that it writes, and that no process keeps running."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import cv2
import httpx
import pytest

from avatar.media.ffmpeg import executable
from demo import models, stack
from demo.__main__ import main
from demo.arguments import ROOT, parser
from demo.errors import StackError
from embedded.ports import find_free
from export.checkpoints import registry
from tests.support.postgres import temporary_folder

COMMAND = (sys.executable, "-m", "demo")
TOKEN = "0" * 32
TIMEOUT = 300.0  # seconds
ONNX = ("--format", "onnx", "--precision", "fp32")  # as the session's repository


def still_running(folder: Path) -> list[str]:
    """Return the command lines of the processes that work in this folder."""
    command_lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # the process has ended
            continue
        if str(folder) in line:
            command_lines.append(line)
    return command_lines


def test_help_explains_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "0 done, 1 failed, 2 wrong usage" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("down",), ("--wieghts", "x"), ("up", "--port", "http")])
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_the_official_files_are_those_of_the_exporter() -> None:
    assert models.OFFICIAL_FILES == registry.FILES


@pytest.mark.parametrize("present", ["wav2lip.pth", pytest.param("xception_pascalvoc.pb", marks=pytest.mark.slow)])
def test_an_incomplete_set_of_real_weights_exits_with_1_and_names_the_missing_files(
    tmp_path: Path, present: str, capfd: pytest.CaptureFixture[str]
) -> None:
    weights, repository = tmp_path / "weights", tmp_path / "repository"
    weights.mkdir()
    (weights / present).write_bytes(b"one of several files")
    assert main(["--weights", str(weights), "--repository", str(repository), "--out", str(tmp_path / "out")]) == 1
    output = capfd.readouterr()
    assert "missing: " + ", ".join(name for name in registry.FILES if name != present) in output.err
    assert "STAND-IN" not in output.out + output.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["weights", present])


def test_real_weights_are_never_replaced_by_stand_ins_even_when_they_are_broken(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in registry.FILES:
        (tmp_path / name).write_bytes(b"<html>404</html>")
    where = ["--weights", tmp_path, "--repository", tmp_path / "repository", "--out", tmp_path / "out"]
    assert main([str(each) for each in where]) == 1
    output = capfd.readouterr()
    assert "wav2lip.pth: this is a web page" in output.err
    assert "STAND-IN" not in output.out + output.err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(registry.FILES)


def test_a_run_writes_a_video_and_a_sheet_and_leaves_no_process(
    tiny_repository: Path,
    samples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # a proxy must not be used for our own servers, and a cached avatar would skip face detection
    for variable, value in {"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "AVATAR_CACHE_MIB": "0"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AVATAR_TRITON_TOKEN", TOKEN)
    speech = tmp_path / "speech.wav"
    short = ["-i", str(samples / "speech.wav"), "-t", "0.9", str(speech)]
    subprocess.run([executable(), "-v", "error", "-nostdin", *short], check=True)
    logs, out = tmp_path / "logs", tmp_path / "out"
    where = ["--no-export", "--repository", tiny_repository, "--logs", logs, "--out", out, "--speech", speech]
    assert main([str(each) for each in where]) == 0
    output = capfd.readouterr().out
    for stage in ("weights and export", "start Triton and gateway", "detection", "generation", "encode"):
        assert any(line.strip().startswith(stage) and line.endswith(" s") for line in output.splitlines()), stage
    assert "rendered with STAND-INS for s3fd, wav2lip, segmentation" in output
    assert cv2.VideoCapture(str(out / "demo.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 23
    sheet = cv2.imread(str(out / "demo.png"))
    assert sheet is not None
    assert sheet.shape[1] == 6 * 320
    written = {path.name: path.read_text(errors="replace") for path in logs.iterdir()}
    assert "frames are sent to Triton through shared memory" in written["gateway.log"]  # both have the token
    assert not any(TOKEN in text for text in (output, *written.values()))
    assert still_running(logs) == []


@pytest.mark.slow  # tests/soak/test_soak.py checks the same in every run
def test_up_serves_until_ctrl_c_and_exits_with_0(tiny_repository: Path, tmp_path: Path, database_folder: Path) -> None:
    ports = stack.Ports.free()
    numbers = ["--port", ports.gateway, "--grpc-port", ports.grpc]
    where = ["--no-export", "--repository", tiny_repository, "--logs", tmp_path]
    where += ["--database", database_folder / "data", "--store", tmp_path / "store"]
    argv = [*COMMAND, "up", *map(str, [*where, *numbers, "--metrics-port", ports.metrics])]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as command:
        try:
            assert command.stdout is not None
            output = ""
            while f"http://127.0.0.1:{ports.gateway}/ " not in output:
                line = command.stdout.readline()
                assert line, output
                output += line
            assert httpx.get(f"http://127.0.0.1:{ports.gateway}/health/ready", timeout=60).status_code == 200
            assert still_running(tmp_path)
            assert any("embedded.postgres" in line for line in still_running(database_folder))
            command.send_signal(signal.SIGINT)
            assert command.wait(TIMEOUT) == 0
        finally:
            command.terminate()
    assert still_running(tmp_path) + still_running(database_folder) == []
    assert "database system is shut down" in (tmp_path / "postgres.log").read_text()


def test_up_exits_with_1_when_a_port_is_in_use_and_names_it(
    tmp_path: Path, runs: list[tuple[str, ...]], capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        free = ["--port", str(find_free()), "--weights", str(tmp_path), "--logs", str(tmp_path / "logs")]
        assert main(["up", *free, "--grpc-port", port]) == 1
    error = capfd.readouterr().err
    assert f"--grpc-port {port}: the port is in use" in error
    assert re.search(r'as in: make up UP="--grpc-port \d+"$', error.strip())
    assert not runs, "the ports are checked before the models are exported"
    assert still_running(tmp_path) == []


def test_up_takes_address_and_port_from_the_gateways_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVATAR_HOST", raising=False)
    monkeypatch.delenv("AVATAR_PORT", raising=False)
    usual = parser().parse_args(["up"])
    assert (usual.host, usual.port) == ("127.0.0.1", 16000)
    monkeypatch.setenv("AVATAR_HOST", "0.0.0.0")  # noqa: S104 - parsed, not bound
    monkeypatch.setenv("AVATAR_PORT", "17000")
    chosen = parser().parse_args(["up"])
    assert (chosen.host, chosen.port) == ("0.0.0.0", 17000)  # noqa: S104
    assert parser().parse_args(["up", "--port", "18000"]).port == 18000


def test_make_hands_its_own_options_to_the_command() -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "--silent", "up", "UP=--port 9000"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "-m demo up --port 9000" in printed.stdout


def test_the_database_of_a_checkout_in_a_closed_folder_is_elsewhere_for_root(tmp_path: Path) -> None:
    with temporary_folder() as reachable:
        assert stack.default_database(reachable) == reachable / "database"
    is_root = os.geteuid() == 0  # PostgreSQL then runs as another user, who cannot enter the folders of pytest
    assert stack.default_database(tmp_path) == (stack.DATABASE_OF_ROOT if is_root else tmp_path / "database")


@pytest.mark.parametrize("flag", ["--port", "--http-port", "--grpc-port", "--metrics-port"])
def test_a_port_of_another_server_is_rejected(tmp_path: Path, flag: str) -> None:
    free = stack.Ports.free()
    ports = {"--port": "gateway", "--http-port": "http", "--grpc-port": "grpc", "--metrics-port": "metrics"}
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        taken = replace(free, **{ports[flag]: other.server_port})
        with (
            pytest.raises(StackError, match=f"^{flag} {other.server_port}: the port is in use"),
            stack.running(tmp_path, tmp_path, taken),
        ):
            pass
    assert still_running(tmp_path) == []


def test_one_port_for_two_servers_is_rejected_before_anything_starts(tmp_path: Path) -> None:
    free = stack.Ports.free()
    with (
        pytest.raises(StackError, match=f"^--metrics-port {free.grpc}: two services cannot share one port"),
        stack.running(tmp_path, tmp_path, replace(free, metrics=free.grpc)),
    ):
        pass
    assert still_running(tmp_path) == []


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands of the exporter, which are recorded and not run."""
    recorded: list[tuple[str, ...]] = []
    monkeypatch.setattr(models, "_run", lambda *words: recorded.append(words))
    return recorded


def exports(weights: Path, repository: Path) -> list[tuple[str, ...]]:
    """Return the commands that export stand-ins."""
    folder = str(weights / "stand-ins")
    return [
        ("export", "stand-ins", "--weights", folder),
        ("export", "models", "--weights", folder, "--repository", str(repository), *ONNX),
    ]


def test_without_a_network_no_download_is_attempted(
    tmp_path: Path,
    runs: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    unreachable = ("127.0.0.1", find_free())
    models.prepare(tmp_path, tmp_path / "repository", ONNX, accept_license=True, host=unreachable)
    output = capsys.readouterr().out
    assert "there is no network" in output
    assert "STAND-INS are used" in output
    assert runs == exports(tmp_path, tmp_path / "repository")


def test_without_a_terminal_the_license_has_to_be_accepted_by_the_option(
    tmp_path: Path, runs: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    models.prepare(tmp_path, tmp_path / "repository", ONNX)
    output = capsys.readouterr().out
    assert "The published weights were not downloaded: their license must be accepted first" in output
    assert f"{sys.executable} -m export weights --dir {tmp_path}\n" in output, "a command that runs, and asks"
    assert "STAND-INS are used" in output
    assert runs == exports(tmp_path, tmp_path / "repository")


def test_after_a_failed_download_stand_ins_are_used_and_nothing_is_exported_twice(
    stand_in_weights: Path, repository: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # nothing listens on this port, so every connection is refused
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    # the folder holds the stand-ins' folder, and no official file
    models.prepare(stand_in_weights.parent, repository, ONNX, accept_license=True)
    output = capfd.readouterr()
    assert "every source failed" in output.err
    assert "Continuing without the published weights" in output.out
    assert "STAND-INS are used" in output.out
    assert output.out.count(": up to date with ") == 4
    assert ": exporting from " not in output.out
