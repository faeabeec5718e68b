"""The server's process, its guard and their folder: started together, gone together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from . import watchdog
from .errors import EmbeddedError


class ServerProcess:
    """One run of the server in a session of its own, so that a terminal's Ctrl-C reaches only its owner."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="embedded-triton-"))
        self.shm_prefix = f"{self.folder.name}-"  # unique, as the folder is
        self._server: subprocess.Popen[bytes] | None = None
        self._guard = _start_guard(self.shm_prefix, self.folder)

    @property
    def pid(self) -> int:
        """The server's process id, which is its process group's too."""
        if self._server is None:
            raise EmbeddedError("the server is not running")
        return self._server.pid

    def start(self, argv: list[str], env: dict[str, str], log: BinaryIO) -> None:
        """Start the server with its output in `log`."""
        self._server = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        self._tell_guard(f"watch {self._server.pid}")

    def exit_status(self, timeout: float = 0) -> int | None:
        """The server's exit status (negative: a signal), None while it runs after `timeout` seconds."""
        if self._server is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            return self._server.wait(timeout)
        return None

    def stop(self, timeout: float) -> None:
        """Ask the server to stop, kill what is left after `timeout` seconds, and clean up."""
        try:
            if self._server is not None and self._server.poll() is None:
                self._server.send_signal(signal.SIGTERM)
                self.exit_status(timeout)
        finally:  # also when the wait is interrupted
            self.kill()

    def kill(self) -> None:
        """Kill the server and its stubs at once, and clean up. Does nothing the second time."""
        if self._server is not None:
            watchdog.kill_group(self._server.pid)
            self._server.wait()
        watchdog.remove_leftovers(self.shm_prefix, self.folder)
        self._tell_guard("done")
        if self._guard.stdin and not self._guard.stdin.closed:
            self._guard.stdin.close()
        self._guard.wait()

    def _tell_guard(self, message: str) -> None:
        if self._guard.stdin and not self._guard.stdin.closed:
            with suppress(BrokenPipeError):  # without a guard, only our own death goes unguarded
                self._guard.stdin.write(f"{message}\n".encode())
                self._guard.stdin.flush()


def _start_guard(prefix: str, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", watchdog.__file__, prefix, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=os.sep,
    )
