"""Weights, models, Triton and the gateway: everything that has to run before a form can be posted."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedded.errors import PortBusy
from embedded.ports import find_free, refuse_taken

# as in export.checkpoints, which would bring torch
OFFICIAL = ("wav2lip.pth", "wav2lip_gan.pth", "s3fd.pth", "xception_pascalvoc.pb")
SOURCE = ("github.com", 443)  # host of the first source in export.published
START_SECONDS = 300.0  # the longest start that is waited for
STOP_SECONDS = 40.0  # longer than either server takes: the gateway's jobs get 20 s to finish and 15 to clean up
# What runs on this machine is never reached through the proxy that a machine may have for downloads.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StackError(Exception):
    """A part of the stack did not start, or stopped by itself; the message says which and why."""


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1 (the gateway's: on `gateway_host`)."""

    gateway: int = 16000
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody listens on at this moment."""
        found: list[int] = []
        for _ in range(4):
            found.append(find_free(found))
        return cls(*found)


@dataclass(frozen=True)
class Stack:
    """A running stack: where the gateway answers, and the processes behind it by package name."""

    url: str
    processes: dict[str, subprocess.Popen[bytes]]

    def ended(self) -> str | None:
        """The package whose process has ended by itself, if one has."""
        return next((name for name, process in self.processes.items() if process.poll() is not None), None)


def prepare(
    weights: Path,
    repository: Path,
    how: Sequence[str] = (),
    *,
    accept_licence: bool = False,
    source: tuple[str, int] = SOURCE,
) -> None:
    """Export the models of `weights`, or of stand-ins where it holds none.

    Where files are missing they are downloaded first, if a network is there and somebody accepts their licence:
    at a terminal it is asked for. What was begun and broken off goes on.

    Args:
        weights: folder of the official files.
        repository: where the models go.
        how: options of `python -m export models`; by default it takes what is fastest on this machine.
        accept_licence: download without asking.
        source: host and port that tell whether a network is there.

    Raises:
        StackError: the export failed, or only some of the official files are there.
    """
    there = [name for name in OFFICIAL if (weights / name).exists()]
    if not there or (len(there) < len(OFFICIAL) and list(weights.glob("*.part"))):
        _try_download(weights, accept_licence, source)
    if not any((weights / name).exists() for name in OFFICIAL):
        print(
            f"!! No weights in {weights}/: STAND-INS are used. The pipeline is the real one, the nets are not:\n"
            "!! the face is found by its colour, the mouth only darkens with loudness. README: “Real weights”."
        )
        weights = weights / "stand-ins"
        _run("export", "stand-ins", "--weights", str(weights))
    prepare_from(weights, repository, how)


def _try_download(weights: Path, accept_licence: bool, source: tuple[str, int]) -> None:
    """Bring the published weights, or say in a line why not; half a gigabyte comes only when somebody wants it."""
    command = f"python -m export weights --dir {weights} --accept-licence"
    if not accept_licence and not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(f"The published weights were not downloaded: their licence has to be accepted. To do so: {command}")
    elif not _reachable(source):
        print(f"No network reaches the published weights. Where there is one: {command}")
    else:
        try:
            _run("export", "weights", "--dir", str(weights), *(["--accept-licence"] if accept_licence else []))
        except StackError:
            print(f"Going on without the published weights. To try again: {command}")


def _reachable(source: tuple[str, int]) -> bool:
    """Whether the network reaches there; a proxy is taken at its word."""
    if urllib.request.getproxies():
        return True
    try:
        socket.create_connection(source, timeout=3).close()
    except OSError:
        return False
    return True


def prepare_from(weights: Path, repository: Path, how: Sequence[str] = ()) -> None:
    """Export the models of exactly this folder; raises StackError as `prepare`."""
    _run("export", "models", "--weights", str(weights), "--repository", str(repository), *how)


def add_variant(parser: argparse._ArgumentGroup) -> None:
    """The two options that `how` is made of."""
    text = "of the models, as `python -m export models` knows it (default: what is fastest on this machine)"
    parser.add_argument("--format", choices=("onnx", "torchscript", "openvino"), help=f"format {text}")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), help=f"precision {text}")


def how(options: argparse.Namespace) -> list[str]:
    """What `add_variant` has read, as the exporter's options."""
    said = {"--format": options.format, "--precision": options.precision}
    return [word for flag, value in said.items() if value for word in (flag, value)]


@contextlib.contextmanager
def running(
    repository: Path,
    logs: Path,
    ports: Ports,
    gateway_host: str = "127.0.0.1",
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """Triton and the gateway as child processes, ready at the yield and stopped at the end.

    Args:
        repository: exported models.
        logs: folder for the logs of both.
        ports: where they listen.
        gateway_host: the address that the gateway binds.
        settings: of the gateway, by their variables, on top of the environment's.

    Raises:
        StackError: a port is taken, or one of them did not become ready.
    """
    _refuse_taken(ports)
    logs.mkdir(parents=True, exist_ok=True)
    url = f"http://{_reached_at(gateway_host)}:{ports.gateway}"
    with contextlib.ExitStack() as parts:
        triton = parts.enter_context(
            _child(
                "embedded",
                *("--repository", str(repository), "--log", str(logs / "triton.log")),
                *("--http-port", str(ports.http), "--grpc-port", str(ports.grpc), "--metrics-port", str(ports.metrics)),
            )
        )
        _wait(f"http://127.0.0.1:{ports.http}/v2/health/ready", "embedded", triton)
        gateway = parts.enter_context(
            _child(
                "gateway",
                *("--host", gateway_host, "--port", str(ports.gateway), "--triton", f"127.0.0.1:{ports.grpc}"),
                log=logs / "gateway.log",
                settings=settings,
            )
        )
        _wait(f"{url}/health/ready", "gateway", gateway, f", see {logs / 'gateway.log'}")
        yield Stack(url, {"embedded": triton, "gateway": gateway})


def _refuse_taken(ports: Ports) -> None:
    """Another server on one of the ports would answer, ready, before ours finds the port taken."""
    flags = {"--port": ports.gateway, "--http-port": ports.http}
    flags |= {"--grpc-port": ports.grpc, "--metrics-port": ports.metrics}
    seen: list[int] = []
    try:
        for flag, port in flags.items():
            refuse_taken(flag, port, seen)
            seen.append(port)
    except PortBusy as error:
        raise StackError(str(error)) from error


def _reached_at(host: str) -> str:
    """Where a server that is bound to `host` answers on this machine, as it stands in a URL."""
    if host == "0.0.0.0":  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{'::1' if host == '::' else host}]" if ":" in host else host


def _run(package: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", package, *arguments], check=False)
    if done.returncode:
        raise StackError(f"python -m {package} {arguments[0]} failed")


@contextlib.contextmanager
def _child(
    package: str, *arguments: str, log: Path | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """One of our servers in a process group of its own (Ctrl-C reaches us, and we stop it), stopped at the end."""
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


def _wait(url: str, package: str, child: subprocess.Popen[bytes], more: str = "") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise StackError(f"python -m {package} stopped while starting (exit status {child.returncode}){more}")
        with contextlib.suppress(urllib.error.URLError, OSError), _DIRECT.open(url, timeout=2):
            return
        time.sleep(0.2)
    raise StackError(f"python -m {package} was not ready after {START_SECONDS:.0f} s{more}")
