"""A signal that comes to the guard while it starts Triton."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from embedded import guard

SERVER = ("sleep", "20")


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restore the handlers of the signals that the guard takes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_stop_signal_that_comes_while_the_server_is_started_stops_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    popen, servers = subprocess.Popen, list[subprocess.Popen[bytes]]()

    def start(command: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = popen(command, **options)
        if command == SERVER:
            servers.append(process)
            os.kill(os.getpid(), signal.SIGTERM)  # before the guard has the process
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    assert guard.Guard(SERVER, None, "127.0.0.1:1").run() == 0
    assert [server.returncode for server in servers] == [-signal.SIGTERM]
    assert "guard: stopped (signal 15)" in capsys.readouterr().err
