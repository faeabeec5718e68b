"""Tell clients apart by their address, and limit how many places one of them holds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.requests import HTTPConnection

from avatar.resources.held import Held

from .errors import TooManyJobs
from .settings import Network

logger = logging.getLogger(__name__)

LOCAL = "local"  # a client without an address, such as one on a UNIX socket
_IPV6_PREFIX = 64  # one customer of a provider usually has a whole /64, and so every address in it


def is_proxy(address: str, trusted: Sequence[Network]) -> bool:
    """Return whether this is the address of a trusted proxy."""
    found = _parse(address)
    return found is not None and any(found in network for network in trusted)


def client_of(connection: HTTPConnection, trusted: Sequence[Network]) -> str:
    """Return the key of the client that sent a request.

    That is the address of the peer. If the peer is a trusted proxy, it is the last address in X-Forwarded-For that is
    not a trusted proxy itself: every proxy appends the address that it sees; a client can write anything before it.
    """
    client = connection.client.host if connection.client else ""
    if is_proxy(client, trusted):
        forwarded = ",".join(connection.headers.getlist("x-forwarded-for")).split(",")
        for address in reversed(forwarded):
            if _parse(address) is None:
                break  # the rest cannot be relied on
            client = address
            if not is_proxy(address, trusted):
                break
    return client_key(client)


def client_key(address: str) -> str:
    """Return what stands for an address: itself, or its network of 64 bits if it is an IPv6 address."""
    found = _parse(address)
    if found is None:
        return LOCAL
    if isinstance(found, IPv6Address):
        return str(ip_network((found, _IPV6_PREFIX), strict=False))
    return str(found)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; None of anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(found, IPv6Address) and found.ipv4_mapped) or found


class ClientShares:
    """Counts the requests under way of each client.

    Args:
        most: requests of one client at the same time; 0 for any number.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = Held()

    @contextmanager
    def hold(self, client: str) -> Iterator[None]:
        """Count a request of this client within the block. Raises TooManyJobs if it has too many already."""
        if self._most and self._held.by(client) >= self._most:
            logger.info("client %s has its share of the places", client)
            raise TooManyJobs(
                f"limit of {self._most} running and queued requests per client address reached; "
                "wait until one of them ends"
            )
        with self._held.hold(client):
            yield
