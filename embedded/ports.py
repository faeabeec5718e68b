"""Ports on 127.0.0.1: free ones found, wished ones checked before the server is started."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .errors import PortBusy

HOST = "127.0.0.1"
# below the kernel's ephemeral range (32768 and up): no outgoing connection takes one of these
# between our look and the server's bind, which comes only after the models are loaded
_FREE_RANGE = range(20_000, 32_000)


@dataclass(frozen=True)
class Ports:
    """The server's three ports."""

    http: int
    grpc: int
    metrics: int


def choose(requested: Mapping[str, int]) -> Ports:
    """Keep the wished ports (keys `http`, `grpc`, `metrics`), replace each 0 by a free one.

    Raises:
        PortBusy: a wished port is taken, or wished twice.
    """
    chosen: dict[str, int] = {}
    for name, port in requested.items():
        if port:
            check_port_free(f"--{name}-port", port, chosen.values())
            chosen[name] = port
    for name, port in requested.items():
        if not port:
            chosen[name] = find_free(chosen.values())
    return Ports(**chosen)


def is_free(port: int) -> bool:
    """Whether nothing listens on 127.0.0.1:port."""
    with socket.socket() as probe:
        # a closed connection that lingers does not count as busy, a listener does
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def check_port_free(flag: str, port: int, taken: Collection[int] = ()) -> None:
    """Raise PortBusy, naming `flag`, where somebody listens on `port` or it is among `taken`."""
    if port in taken:
        raise PortBusy(f"{flag} {port}: two services cannot share one port")
    if not is_free(port):
        raise PortBusy(f"{flag} {port}: the port is in use; stop what listens there or choose another")


def find_free(taken: Collection[int] = ()) -> int:
    """A port on which nobody listens, none of `taken`. Raises PortBusy where there is none."""
    for port in random.SystemRandom().sample(_FREE_RANGE, 1000):
        if port not in taken and is_free(port):
            return port
    raise PortBusy(f"no free port between {_FREE_RANGE.start} and {_FREE_RANGE.stop}")
