"""Choose ports on 127.0.0.1: check the requested ones and find free ones, before the server starts."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .errors import PortBusy

HOST = "127.0.0.1"
# below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes one of these between the check
# and the server's bind, which follows only after the models are loaded
_FREE_RANGE = range(20_000, 32_000)


@dataclass(frozen=True)
class Ports:
    """The server's ports; no `http` where HTTP is off."""

    http: int | None
    grpc: int
    metrics: int


def choose(requested: Mapping[str, int | None]) -> Ports:
    """Return the requested ports (keys `http`, `grpc`, `metrics`), each 0 replaced by a free port; None stays.

    Raises:
        PortBusy: a requested port is in use, or requested twice.
    """
    chosen: dict[str, int] = {}
    for name, port in requested.items():
        if port:
            check_port_free(f"--{name}-port", port, chosen.values())
            chosen[name] = port
    for name, port in requested.items():
        if port == 0:
            chosen[name] = find_free(chosen.values())
    return Ports(chosen.get("http"), chosen["grpc"], chosen["metrics"])


def is_free(port: int) -> bool:
    """Return whether nothing listens on 127.0.0.1:port."""
    with socket.socket() as probe:
        # so that a closed connection in TIME_WAIT does not count as in use; a listener still does
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def check_port_free(flag: str, port: int, taken: Collection[int] = ()) -> None:
    """Raise PortBusy, naming `flag`, if a process listens on `port` or it is among `taken`."""
    if port in taken:
        raise PortBusy(f"{flag} {port}: two services cannot share one port")
    if not is_free(port):
        raise PortBusy(f"{flag} {port}: the port is in use; stop the process that uses it or choose another port")


def find_free(taken: Collection[int] = ()) -> int:
    """Return a free port that is not among `taken`.

    Raises:
        PortBusy: there is none.
    """
    for port in random.SystemRandom().sample(_FREE_RANGE, 1000):
        if port not in taken and is_free(port):
            return port
    raise PortBusy(f"no free port between {_FREE_RANGE.start} and {_FREE_RANGE.stop}")
