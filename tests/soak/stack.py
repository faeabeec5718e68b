"""The service under test: `python -m demo up` as a process, and the processes that it owns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from demo.stack import Ports
from tests.support.postgres import temporary_folder

START_SECONDS = 300.0
STOP_SECONDS = 60.0
STUB = "triton_python_b"  # the kernel cuts process names after 15 characters


@dataclass(frozen=True)
class SoakStack:
    """The running service.

    Attributes:
        url: of the gateway.
        grpc_address: host:port of Triton.
        supervisor: the process of `demo up`, whose descendants are the service.
        folder: its work folder, cache, and logs.
    """

    url: str
    grpc_address: str
    supervisor: psutil.Process
    folder: Path

    def processes(self) -> list[psutil.Process]:
        """Return the supervisor and all of its descendants that are alive."""
        with suppress(psutil.NoSuchProcess):
            return [self.supervisor, *self.supervisor.children(recursive=True)]
        return []

    def triton_server(self) -> psutil.Process | None:
        """Return the process of tritonserver, or None while there is none."""
        return next((each for each in self.processes() if _name(each) == "tritonserver"), None)

    def gateway(self) -> psutil.Process | None:
        """Return the process of the gateway, or None while there is none."""
        return next((each for each in self.processes() if "gateway" in _command(each)[1:4]), None)

    def stub(self, model: str) -> psutil.Process | None:
        """Return a process of a Python model or backend, or None while there is none."""
        for each in self.processes():
            if _name(each) == STUB and any(part.startswith(f"{model}_0") for part in _command(each)):
                return each
        return None

    def is_ready(self) -> bool:
        """Return whether the gateway says that it is ready."""
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health/ready", timeout=10, trust_env=False).status_code == 200
        return False


@contextmanager
def running(repository: Path, folder: Path) -> Iterator[SoakStack]:
    """Start the service on free ports, yield when it is ready, and stop it; raises RuntimeError if it does not stop."""
    ports = Ports.free()
    for name in ("work", "cache", "tmp", "logs"):
        (folder / name).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "demo", "up", "--no-export", "--repository", str(repository)]
    command += ["--logs", str(folder / "logs"), "--port", str(ports.gateway), "--grpc-port", str(ports.grpc)]
    command += ["--metrics-port", str(ports.metrics)]
    settings = {
        "AVATAR_WORK_DIR": str(folder / "work"),
        "AVATAR_CACHE_DIR": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
    }
    with temporary_folder() as database:
        command += ["--database", str(database / "data"), "--store", str(folder / "store")]
        with (folder / "logs" / "up.log").open("wb") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        url, address = f"http://127.0.0.1:{ports.gateway}", f"127.0.0.1:{ports.grpc}"
        stack = SoakStack(url, address, psutil.Process(process.pid), folder)
        try:
            _wait_until_ready(stack, process)
            yield stack
        finally:
            _stop(stack, process)


def _wait_until_ready(stack: SoakStack, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not stack.is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the service did not start: {(stack.folder / 'logs' / 'up.log').read_text()}")
        time.sleep(0.2)


def _stop(stack: SoakStack, process: subprocess.Popen[bytes]) -> None:
    owned = stack.processes()
    process.send_signal(signal.SIGINT)
    try:
        status: int | str = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        status = f"still running {STOP_SECONDS:.0f} s after Ctrl-C"
    left = psutil.wait_procs(owned, timeout=5)[1]
    for each in left:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    if status != 0 or left:
        raise RuntimeError(f"the service did not stop cleanly: status {status}, left: {left}")


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str(process.name())[: len(STUB)]
    return ""


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return [str(part) for part in process.cmdline()]
    return []
