"""Which servers `AVATAR_TRITON_URL` names: host:port, several of them, or a name of which all addresses are used."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

EXPECTED = "host:port of Triton's gRPC expected, or several separated by commas, or dns:///name:port"
_DNS = "dns:///"
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Endpoint:
    """One entry of the setting: a name or an address, and a port."""

    host: str
    port: int

    @property
    def is_fixed(self) -> bool:
        """Whether it is one server for good: an address, or this machine, whatever addresses its name has."""
        try:
            ipaddress.ip_address(self.host.strip("[]"))
        except ValueError:
            return self.host == "localhost"
        return True

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_addresses(text: str) -> tuple[Endpoint, ...]:
    """Return the entries of the setting, each once. Raises ValueError."""
    found = [_ADDRESS.fullmatch(entry.strip().removeprefix(_DNS)) for entry in text.split(",")]
    endpoints = [Endpoint(match["host"], int(match["port"])) for match in found if match and int(match["port"]) < 65536]
    if len(endpoints) < len(found):
        raise ValueError(EXPECTED)
    return tuple(dict.fromkeys(endpoints))


def check_addresses(text: str) -> str:
    """Return the text if `parse_addresses` accepts it. Raises ValueError."""
    parse_addresses(text)
    return text


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name, as the system resolves it. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def resolve(endpoints: Iterable[Endpoint], lookup: Lookup = look_up) -> tuple[str, ...]:
    """Return host:port of each server, each once, in a stable order. Raises OSError where a name has no address."""
    addresses: list[str] = []
    for endpoint in endpoints:
        if endpoint.is_fixed:
            addresses.append(str(endpoint))
        else:
            addresses += sorted(_targets(await lookup(endpoint.host, endpoint.port), endpoint.port))
    return tuple(dict.fromkeys(addresses))


def _targets(found: Sequence[str], port: int) -> list[str]:
    """Return the addresses of one family: a server with addresses of both would count as two.

    IPv4 is preferred, because Triton listens on it by default.
    """
    of_v4 = [f"{address}:{port}" for address in found if ":" not in address]
    return of_v4 or [f"[{address}]:{port}" for address in found]
