"""One of our servers as a child process that can be started again, and that never outlives this process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embedded.watchdog import Watchdog, kill_group

from .errors import StackError

START_SECONDS = 300.0  # limit for the start of a server
STOP_SECONDS = 40.0  # longer than any server takes: the gateway's jobs get 20 s to finish and 15 s to clean up
# A proxy that is configured for downloads must not be used for servers on this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Child:
    """A server of ours: how it is started, and its process. If this process is killed, a watchdog kills the server.

    Attributes:
        package: the package that is run with `python -m`.
        arguments: its command line.
        url: answers with 200 when the server is ready; not used if there is a `check`.
        log: file for its output, which is overwritten at the first start; None for the terminal.
        settings: environment variables, added to those of this process.
        check: returns whether the server is ready, for a server without HTTP.
    """

    package: str
    arguments: tuple[str, ...]
    url: str
    log: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[], bool] | None = None
    _process: subprocess.Popen[bytes] | None = None
    _watchdog: Watchdog | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Return the process that was started last."""
        if self._process is None:
            raise StackError(f"python -m {self.package} was not started")
        return self._process

    def start(self) -> None:
        """Start the server, in a session of its own, so that a terminal's Ctrl-C reaches only us."""
        first = self._process is None
        self._watchdog = Watchdog()
        with contextlib.ExitStack() as files:
            output = files.enter_context(self.log.open("wb" if first else "ab")) if self.log else None
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.package, *self.arguments],
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.settings},
                start_new_session=True,
            )
        self._watchdog.watch(self._process.pid)

    def is_ready(self) -> bool:
        """Return whether the server answers."""
        if self.check is not None:
            return self.check()
        with contextlib.suppress(urllib.error.URLError, OSError), _DIRECT.open(self.url, timeout=2):
            return True
        return False

    def wait_until_ready(self) -> None:
        """Return when the server answers. Raises StackError if it ends, or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if (status := self.process.poll()) is not None:
                raise StackError(
                    f"python -m {self.package} stopped while starting (exit status {status}){self._hint()}"
                )
            if self.is_ready():
                return
            time.sleep(0.2)
        raise StackError(f"python -m {self.package} was not ready after {START_SECONDS:.0f} s{self._hint()}")

    def _hint(self) -> str:
        """Return where the reason is, and the log's last line, which usually is the reason."""
        if self.log is None:
            return ""
        lines = self.log.read_text("utf-8", errors="replace").split("\n")
        return f", see {self.log}: " + next((line.strip() for line in reversed(lines) if line.strip()), "it is empty")

    def stop(self) -> None:
        """Stop the server with SIGTERM, kill it if that takes too long, and leave no process of its group."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill what still runs of the server's process group; a second call has no effect."""
        if self._process is not None:
            kill_group(self._process.pid)
            self._process.wait()
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None

    def describe_end(self) -> str:
        """Return how the server ended, which it has: `exit status 3`, or `signal 9 (SIGKILL)`."""
        status = self.process.returncode
        if status is None or status >= 0:
            return f"exit status {status}"
        return f"signal {-status} ({signal.Signals(-status).name})"

    def __enter__(self) -> Child:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
