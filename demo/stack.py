"""Run Triton and the gateway as child processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from embedded.errors import PortBusy
from embedded.ports import check_port_free, find_free

from .errors import StackError

START_SECONDS = 300.0  # limit for the start of a server
STOP_SECONDS = 40.0  # longer than either server takes: the gateway's jobs get 20 s to finish and 15 s to clean up
# A proxy that is configured for downloads must not be used for servers on this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1, and of the gateway on its own host."""

    gateway: int = 16000
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    @classmethod
    def free(cls) -> Ports:
        """Return ports that are free at this moment."""
        found: list[int] = []
        for _ in range(4):
            found.append(find_free(found))
        return cls(*found)


@dataclass(frozen=True)
class Stack:
    """A running stack: the URL of the gateway, and the server processes by package name."""

    url: str
    processes: dict[str, subprocess.Popen[bytes]]

    def ended(self) -> str | None:
        """Return the package of a process that has ended by itself, or None."""
        return next((name for name, process in self.processes.items() if process.poll() is not None), None)


@contextlib.contextmanager
def running(
    repository: Path,
    logs: Path,
    ports: Ports,
    gateway_host: str = "127.0.0.1",
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """Start Triton and the gateway, yield when both are ready, and stop them at the end.

    Args:
        repository: exported models.
        logs: folder for the logs of both.
        ports: their ports.
        gateway_host: the address that the gateway listens on.
        settings: environment variables of the gateway, added to those of this process.

    Raises:
        StackError: a port is in use, or a server did not become ready.
    """
    _check_ports_free(ports)
    logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as servers:
        triton = servers.enter_context(_triton(repository, logs, ports))
        address = f"127.0.0.1:{ports.grpc}"
        gateway = servers.enter_context(gateway_server(ports.gateway, address, logs, gateway_host, settings))
        yield Stack(gateway.url, {"embedded": triton, **gateway.processes})


@contextlib.contextmanager
def gateway_server(
    port: int, triton: str, logs: Path, host: str = "127.0.0.1", settings: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """Start only the gateway, over a Triton that runs already; `triton` is its gRPC address, `host:port`.

    Raises:
        StackError: the gateway did not become ready.
    """
    url, log = f"http://{_reachable_host(host)}:{port}", logs / "gateway.log"
    arguments = ("--host", host, "--port", str(port), "--triton", triton)
    with _child("gateway", *arguments, log=log, settings=settings) as process:
        _wait_until_ready(f"{url}/health/ready", "gateway", process, f", see {log}")
        yield Stack(url, {"gateway": process})


@contextlib.contextmanager
def _triton(repository: Path, logs: Path, ports: Ports) -> Iterator[subprocess.Popen[bytes]]:
    arguments = ["--repository", str(repository), "--log", str(logs / "triton.log")]
    for kind, port in (("http", ports.http), ("grpc", ports.grpc), ("metrics", ports.metrics)):
        arguments += [f"--{kind}-port", str(port)]
    with _child("embedded", *arguments) as process:
        _wait_until_ready(f"http://127.0.0.1:{ports.http}/v2/health/ready", "embedded", process)
        yield process


def _check_ports_free(ports: Ports) -> None:
    """Raise StackError if a port is in use: the other server would look like ours, ready before ours fails."""
    flags = {"--port": ports.gateway, "--http-port": ports.http}
    flags |= {"--grpc-port": ports.grpc, "--metrics-port": ports.metrics}
    checked: list[int] = []
    try:
        for flag, port in flags.items():
            check_port_free(flag, port, checked)
            checked.append(port)
    except PortBusy as error:
        raise StackError(str(error)) from error


def _reachable_host(host: str) -> str:
    """Return the host part of the URL at which a server that listens on `host` is reachable from this machine."""
    if host == "0.0.0.0":  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{'::1' if host == '::' else host}]" if ":" in host else host


@contextlib.contextmanager
def _child(
    package: str, *arguments: str, log: Path | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our servers, and stop it at the end; in its own process group, so that Ctrl-C reaches only us."""
    with contextlib.ExitStack() as files:
        output = files.enter_context(log.open("wb")) if log else None
        child = subprocess.Popen(
            [sys.executable, "-m", package, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(settings or {})},
            start_new_session=True,
        )
        try:
            yield child
        finally:
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _wait_until_ready(url: str, package: str, child: subprocess.Popen[bytes], hint: str = "") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise StackError(f"python -m {package} stopped while starting (exit status {child.returncode}){hint}")
        with contextlib.suppress(urllib.error.URLError, OSError), _DIRECT.open(url, timeout=2):
            return
        time.sleep(0.2)
    raise StackError(f"python -m {package} was not ready after {START_SECONDS:.0f} s{hint}")
