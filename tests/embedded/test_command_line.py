"""`python -m embedded`: a process runs where signals and exit statuses matter, otherwise its `main` is called."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded import access
from embedded.__main__ import main
from tests.support import tiny_models
from tests.support.triton_calls import caller

ANY_PORTS = ["--grpc-port", "0", "--metrics-port", "0"]
TIMEOUT = 60.0


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    tiny_models.add_arithmetic(folder)
    return folder


def _run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "embedded", *map(str, arguments)]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@contextmanager
def _running(models: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield the command when it is ready, and its line about that."""
    argv = [sys.executable, "-m", "embedded", "--repository", str(models), *ANY_PORTS]
    with subprocess.Popen(
        argv, cwd=models.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        try:
            assert command.stdout is not None
            lines = iter(command.stdout.readline, "")
            yield command, next(line for line in lines if line.startswith("ready:"))
        finally:
            command.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_reports_when_it_is_ready_and_stops_on_a_signal(models: Path, number: signal.Signals) -> None:
    with _running(models) as (command, ready):
        match = re.search(
            r"gRPC (127\.0\.0\.1:\d+), HTTP off, metrics http://127\S+, token in build/triton.token", ready
        )
        assert match, ready
        token_file = models.parent / "build" / "triton.token"
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        with caller(match[1]) as call:
            assert call.client.is_model_ready("arithmetic")
            assert call.client.get_log_settings(headers={access.HEADER: token_file.read_text().strip()})
        command.send_signal(number)
        out, errors = command.communicate(timeout=TIMEOUT)
        assert command.returncode == 0
        assert out.splitlines()[-1] == "stopped"
        assert not errors
        assert not token_file.exists()
    assert "successfully loaded 'arithmetic'" in (models.parent / "build" / "triton.log").read_text()


def test_the_command_exits_with_5_if_the_server_crashes(models: Path) -> None:
    with _running(models) as (command, _):
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        (server,) = [
            pid for pid in children if "tritonserver" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
        ]
        os.kill(int(server), signal.SIGKILL)
        _, errors = command.communicate(timeout=TIMEOUT)
        assert command.returncode == 5
        assert errors.startswith("embedded: Triton ended by itself: signal 9: ")


def test_the_command_exits_with_1_if_the_repository_does_not_exist(tmp_path: Path) -> None:
    done = _run("--repository", "nowhere", *ANY_PORTS, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("embedded: nowhere: no such folder")


def test_the_command_exits_with_1_if_a_port_is_in_use(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = _run("--repository", models, *ANY_PORTS, "--grpc-port", str(port), cwd=models.parent)
    assert done.returncode == 1
    assert done.stderr.startswith(f"embedded: --grpc-port {port}: ")


def test_the_command_exits_with_1_if_a_model_does_not_load(models: Path) -> None:
    tiny_models.add_arithmetic(models, "broken").write_bytes(b"junk")
    done = _run("--repository", models, *ANY_PORTS, cwd=models.parent)
    assert done.returncode == 1
    assert done.stderr.startswith("embedded: model broken does not load: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--repository"],
        ["--repository", "x", "--http-port", "70000"],
        ["--repository", "x", "--grpc-port", "none"],
        ["--repository", "x", "--threads", "0"],
        ["--repository", "x", "--start-timeout", "0"],
        ["--repository", "x", "--no-such-flag"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m embedded" in capsys.readouterr().err


def test_a_token_that_would_not_work_is_rejected_and_not_shown(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(access.TOKEN_VARIABLE, "with a space")
    done = _run("--repository", models, *ANY_PORTS, cwd=models.parent)
    assert done.returncode == 1
    assert done.stderr.startswith("embedded: AVATAR_TRITON_TOKEN: 16 to 256 letters")
    assert "with a space" not in done.stdout + done.stderr


def test_help_lists_every_flag_with_its_default_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for flag in (
        "--repository",
        "--http-port",
        "--grpc-port",
        "--metrics-port",
        "--log",
        "--threads",
        "--poll",
        "--start-timeout",
    ):
        assert flag in text
    for default in ("HTTP is off", "8001", "8002", "build/triton.log", "build/triton.token"):
        assert f"default: {default}" in text
    assert text.count("(default:") == 8
    assert "default: None" not in text
