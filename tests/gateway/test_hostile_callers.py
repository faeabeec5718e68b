"""Hostile callers of a real gateway process, and an honest form that is served meanwhile."""

import contextlib
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedded.server import Triton
from tests.support.gateway_fakes import form
from tests.support.gateway_process import Gateway, gateway_process

BOUNDARY = "a-hostile-boundary"
HEAD = (
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n"
    f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="face_file"; filename="f"\r\n\r\n'
)
PLACES = 34  # of the gateway below


@pytest.fixture(scope="module")
def bounded(triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with as many places as on two cores, and with short times."""
    settings = {
        "AVATAR_MAX_JOBS": "2",
        "AVATAR_MAX_QUEUED": str(PLACES - 2),
        "AVATAR_TRANSFER_SECONDS": "4",
        "AVATAR_HEADER_TIMEOUT": "2",
        "AVATAR_MAX_CONNECTIONS": "100",
    }
    with gateway_process(tmp_path_factory.mktemp("bounded"), triton.grpc_address, **settings) as running:
        yield running


class Attackers:
    """Connections from one address that send a byte each, ten times a second, until they are closed."""

    def __init__(self, gateway: Gateway, number: int, head: str, byte: bytes, address: str = "127.0.0.2") -> None:
        port = int(gateway.url.rpartition(":")[2])
        self.open: list[socket.socket] = []
        self._byte = byte
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drip)
        for _ in range(number):
            with contextlib.suppress(ConnectionError):
                connection = socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
                self.open.append(connection)
                connection.sendall(head.encode())
        self._thread.start()

    def _drip(self) -> None:
        while not self._stop.wait(0.1):
            for each in list(self.open):
                try:
                    each.sendall(self._byte)
                except OSError:  # the gateway closed it
                    self.open.remove(each)
                    each.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for each in self.open:
            each.close()


@contextlib.contextmanager
def attackers(gateway: Gateway, number: int, head: str, byte: bytes = b"x") -> Iterator[Attackers]:
    running = Attackers(gateway, number, head, byte)
    try:
        yield running
    finally:
        running.close()


def honest(gateway: Gateway, samples: Path) -> httpx.Response:
    """Send a form from another address than the attackers."""
    files = form(
        face_file=("face.png", (samples / "face.png").read_bytes()),
        audio_file=("speech.wav", (samples / "speech.wav").read_bytes()[:12_844]),
    )
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.3"), timeout=120) as client:
        return client.post(gateway.url, files=files)


def wait_until_closed(attack: Attackers) -> None:
    for _ in range(300):
        if not attack.open:
            return
        time.sleep(0.1)
    raise AssertionError(f"{len(attack.open)} connections are still open")


def open_connections(gateway: Gateway) -> int:
    lines = httpx.get(f"{gateway.url}/metrics", timeout=60).text.splitlines()
    return round(float(next(line.split()[1] for line in lines if line.startswith("avatar_connections "))))


def test_an_honest_form_is_served_while_one_address_drips_as_many_uploads_as_there_are_places(
    bounded: Gateway, samples: Path
) -> None:
    with attackers(bounded, PLACES, HEAD) as attack:
        assert honest(bounded, samples).status_code == 200
        wait_until_closed(attack)
    log = bounded.log.read_text()
    assert log.count("POST / 429") == PLACES // 2
    assert log.count("POST / 408") == PLACES // 2
    assert bounded.leftovers() == []


def test_silent_and_never_ending_heads_are_closed_while_others_are_served(bounded: Gateway, samples: Path) -> None:
    with attackers(bounded, 100, "GET /ping HTTP/1.1\r\nHost: x\r\n", b"A") as attack:
        assert honest(bounded, samples).status_code == 200
        wait_until_closed(attack)
    with attackers(bounded, 40, "", b"") as attack:
        assert httpx.get(f"{bounded.url}/ping", timeout=60).status_code == 200
        for each in attack.open:
            each.settimeout(30)
            assert each.recv(1) == b""
    for _ in range(100):
        if open_connections(bounded) == 1:
            break
        time.sleep(0.1)
    assert open_connections(bounded) == 1  # the one that asks


def test_a_gateway_with_few_descriptors_serves_fewer_connections(triton: Triton, tmp_path: Path, samples: Path) -> None:
    python = tmp_path / "limited-python"
    python.write_text(f'#!/bin/sh\nulimit -n 500\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    with gateway_process(tmp_path, triton.grpc_address, python=str(python), AVATAR_MAX_JOBS="2") as gateway:
        with attackers(gateway, 480, HEAD):  # one address asks for nearly all of them
            assert honest(gateway, samples).status_code == 200
        log = gateway.log.read_text()
    assert "this process may open 500 files: at most 160 connections instead of AVATAR_MAX_CONNECTIONS=1000" in log
    assert "ERROR" not in log
