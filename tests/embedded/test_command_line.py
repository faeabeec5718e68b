"""`python -m embedded`, as people and scripts call it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import tiny_models
from tests.support.triton_calls import caller

ANY_PORTS = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
PATIENCE = 60.0


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    tiny_models.add_arithmetic(folder)
    return folder


def _run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "embedded", *map(str, arguments)]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextmanager
def _running(models: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command when it is ready, and the line that says so."""
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
def test_it_says_when_it_is_ready_serves_and_stops_when_asked(models: Path, number: signal.Signals) -> None:
    with _running(models) as (command, ready):
        found = re.search(r"gRPC (127\.0\.0\.1:\d+), HTTP http://127\.0\.0\.1:\d+, metrics http://127", ready)
        assert found, ready
        with caller(found[1]) as call:
            assert call.client.is_model_ready("arithmetic")
        command.send_signal(number)
        out, errors = command.communicate(timeout=PATIENCE)
        assert command.returncode == 0
        assert out.splitlines()[-1] == "stopped"
        assert not errors
    assert "successfully loaded 'arithmetic'" in (models.parent / "build" / "triton.log").read_text()


def test_a_crash_of_the_server_ends_it_with_1(models: Path) -> None:
    with _running(models) as (command, _):
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        (server,) = [
            pid for pid in children if "tritonserver" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
        ]
        os.kill(int(server), signal.SIGKILL)
        _, errors = command.communicate(timeout=PATIENCE)
        assert command.returncode == 1
        assert errors.startswith("embedded: Triton ended by itself (signal 9)")


def test_a_missing_repository_ends_it_with_1_and_a_sentence(tmp_path: Path) -> None:
    done = _run("--repository", "nowhere", *ANY_PORTS, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("embedded: nowhere: no such folder")


def test_a_busy_port_ends_it_with_1_and_names_the_flag(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = _run("--repository", models, *ANY_PORTS, "--grpc-port", str(port), cwd=models.parent)
    assert done.returncode == 1
    assert done.stderr.startswith(f"embedded: --grpc-port {port}: ")


def test_a_broken_model_ends_it_with_1_and_its_reason(models: Path) -> None:
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
        ["--repository", "x", "--no-such-flag"],
    ],
)
def test_wrong_usage_ends_it_with_2(tmp_path: Path, arguments: list[str]) -> None:
    done = _run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: python -m embedded" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_flag_and_its_default(tmp_path: Path) -> None:
    done = _run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for flag in ("--repository", "--http-port", "--grpc-port", "--metrics-port", "--log", "--threads"):
        assert flag in done.stdout
    for default in ("8000", "8001", "8002", "build/triton.log"):
        assert f"default: {default}" in done.stdout
