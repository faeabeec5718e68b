"""`python3 -m embedded.guard -- tritonserver ARGUMENT…`: run Triton in a container, and end when it has lost a model.

The container then ends too, with a status that says why, and its restart policy starts it again. Only the standard
library is imported, and Python 3.10 is enough: this runs in NVIDIA's image, which has few packages.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import FrameType

from . import access
from .canary import TINY_CALLS, HttpCaller, Outcome
from .errors import ServerDied, ServerEnded, StartFailed
from .last_words import describe_status
from .model_watch import POLLING, ModelWatch
from .progress import Progress
from .watchdog import Watchdog, kill_group

EPILOG = (
    "Exit status: 0 stopped by SIGTERM or SIGINT, 1 the server ended before it was ready, 2 wrong usage, 3 the process "
    "of a model died, 4 a model hangs, 5 the server ended by itself. With --check: 0 every model answers, 1 not."
)
CHECK_SECONDS = 2.5  # for which --check waits for each model
_POLL_SECONDS = 0.2


class Guard:
    """Runs one server to its end."""

    def __init__(self, command: Sequence[str], http_address: str | None, metrics_address: str) -> None:
        """Prepare to run `command`; without an address of HTTP no tiny calls are made."""
        self._command = command
        self._progress = Progress(metrics_address)
        self._call = HttpCaller(http_address) if http_address else None
        self._stopping = False
        self._server: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run the server; return the exit status of the guard."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        watchdog = Watchdog()
        self._server = subprocess.Popen(self._command, start_new_session=True)
        if self._stopping:  # by a signal that came before there was a server to pass it on to
            self._server.send_signal(signal.SIGTERM)
        watchdog.watch(self._server.pid)
        try:
            return self._supervise(self._server)
        finally:
            kill_group(self._server.pid)  # with its stubs and their children
            self._server.wait()
            watchdog.dismiss()

    def _supervise(self, server: subprocess.Popen[bytes]) -> int:
        while not self._progress.readable():  # the server starts its metrics last
            if (status := _ended(server, _POLL_SECONDS)) is not None:
                return self._report(
                    StartFailed(f"Triton ended before it was ready ({describe_status(status)})"), status
                )
        if token := access.token_of(self._command):
            for pid in (os.getpid(), server.pid):
                access.hide_argument(pid, token)
        finished, reloads = self._progress.finished, POLLING in self._command
        watch = ModelWatch(server.pid, TINY_CALLS, self._call, finished, reloads=reloads)  # now it knows all names
        _print_line("every model is loaded")
        faults: list[ServerEnded | None] = []
        watching = threading.Thread(target=lambda: faults.append(watch.run()), daemon=True)
        watching.start()
        while watching.is_alive() or self._stopping:
            if self._stopping:
                watch.stop()  # from now on models end rightly
            if (status := _ended(server, _POLL_SECONDS)) is not None:
                return self._report(ServerDied(f"Triton ended by itself ({describe_status(status)})"), status)
        fault = next(filter(None, faults), None)
        return self._report(fault or ServerDied("the watcher of the models ended"), 1)

    def _report(self, fault: ServerEnded | StartFailed, status: int) -> int:
        if self._stopping:
            _print_line(f"stopped ({describe_status(status)})")
            return 0
        _print_line(str(fault))
        return fault.exit_status

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)


def check(http_address: str) -> int:
    """Call every model that the server has once; return 0 if all answer within seconds."""
    call, start = HttpCaller(http_address), time.monotonic()
    with ThreadPoolExecutor(len(TINY_CALLS)) as pool:
        outcomes = dict(zip(TINY_CALLS, pool.map(lambda model: call(model, CHECK_SECONDS), TINY_CALLS), strict=True))
    bad = {model: outcome for model, outcome in outcomes.items() if outcome not in (Outcome.ANSWERED, Outcome.ABSENT)}
    for model, outcome in bad.items():
        _print_line(f"{model}: {outcome.value}")
    if not bad:
        _print_line(f"every model answers ({time.monotonic() - start:.2f} s)")
    return 1 if bad or Outcome.ANSWERED not in outcomes.values() else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python3 -m embedded.guard",
        description="Run Triton, and end when the process of a model is dead, or when a model hangs.",
        epilog=EPILOG,
    )
    parser.add_argument("--http", metavar="HOST:PORT", help="Triton's HTTP, for tiny calls (default: no calls)")
    parser.add_argument(
        "--metrics", default="127.0.0.1:8002", metavar="HOST:PORT", help="Triton's metrics (default: 127.0.0.1:8002)"
    )
    parser.add_argument("--check", action="store_true", help="only call every model once (needs --http)")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="after --: the server and its arguments")
    options = parser.parse_args(argv)
    if options.check:
        if not options.http or options.command:
            parser.error("--check needs --http, and no command")
        return check(options.http)
    if not options.command:
        parser.error("the server's command is missing: -- tritonserver …")
    try:
        return Guard(options.command, options.http, options.metrics).run()
    except OSError as error:
        _print_line(f"the server cannot be started: {error}")
        return 1


def _ended(server: subprocess.Popen[bytes], timeout: float) -> int | None:
    with suppress(subprocess.TimeoutExpired):
        return server.wait(timeout)
    return None


def _print_line(line: str) -> None:
    print(f"guard: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
