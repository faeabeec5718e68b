"""The server's process, its watchdog and their temporary folder, created and removed together."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from . import private_memory, watchdog
from .errors import EmbeddedError


class ServerProcess:
    """One run of the server, in its own session, so that a terminal's Ctrl-C reaches only the owner."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="embedded-triton-"))
        self.shm_prefix = f"{watchdog.REGIONS}{self.folder.name}-"  # unique, like the folder
        self._server: subprocess.Popen[bytes] | None = None
        self._watchdog = watchdog.Watchdog(self.shm_prefix, self.folder)

    @property
    def pid(self) -> int:
        """Return the server's process id, which is also the id of its process group."""
        if self._server is None:
            raise EmbeddedError("the server is not running")
        return self._server.pid

    def start(self, argv: list[str], env: dict[str, str], log: BinaryIO) -> None:
        """Start the server, and write its output to `log`."""
        launcher = [sys.executable, "-I", "-S", private_memory.__file__]  # it becomes the server
        self._server = subprocess.Popen(
            [*launcher, *argv], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        self._watchdog.watch(self._server.pid)

    def exit_status(self, timeout: float = 0) -> int | None:
        """Return the server's exit status (negative: a signal), or None if it still runs after `timeout` seconds."""
        if self._server is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            return self._server.wait(timeout)
        return None

    def stop(self, timeout: float) -> None:
        """Stop the server with SIGTERM, kill what still runs after `timeout` seconds, and clean up."""
        try:
            if self._server is not None and self._server.poll() is None:
                self._server.send_signal(signal.SIGTERM)
                self.exit_status(timeout)
        finally:  # even if the wait is interrupted
            self.kill()

    def kill(self) -> None:
        """Kill the server and its stubs, and clean up. A second call has no effect."""
        if self._server is not None:
            watchdog.kill_group(self._server.pid)
            self._server.wait()
        watchdog.remove_leftovers(self.shm_prefix, self.folder)
        self._watchdog.dismiss()
