"""Connect to the addresses of a host that were checked, and to nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpcore

from .addresses import Address, UrlRules, plain
from .errors import RefusedUrl, RequestFailed

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]

_DNS_SECONDS = 10.0
_DNS_THREADS = 8
_ADDRESSES = 4  # of one host that are tried


class SystemResolver:
    """Asks the resolver of the system, in threads of its own: slow DNS must not hold the threads that write files."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_DNS_THREADS, thread_name_prefix="dns")

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """Return the addresses of a host, in the order in which they should be tried."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _ask_system, host, port)

    def close(self) -> None:
        """End the threads that are idle; the others end with their answers."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _ask_system(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(plain(str(entry[4][0])) for entry in found))


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a host, checks its addresses, and connects to one of these. httpcore still checks the certificate."""

    def __init__(self, rules: UrlRules, resolve: Resolve) -> None:
        self._rules = rules
        self._resolve = resolve
        self._inner = httpcore.AnyIOBackend()

    async def addresses(self, host: str, port: int) -> Sequence[Address]:
        """Return the addresses of a host. Raises RefusedUrl if one of them is not allowed, or RequestFailed."""
        try:
            async with asyncio.timeout(_DNS_SECONDS):
                addresses = await self._resolve(host, port)
        except TimeoutError as error:
            raise RequestFailed("the host of the URL is not resolved in time", transient=True) from error
        except socket.gaierror as error:
            transient = error.errno == socket.EAI_AGAIN
            raise RequestFailed("the host of the URL is unknown; check its name", transient) from error
        except (OSError, ValueError) as error:  # a name that no DNS server would take
            raise RequestFailed("the host of the URL cannot be resolved; check its name") from error
        if not addresses:
            raise RequestFailed("the host of the URL has no address; check its name")
        self._rules.check_addresses(host, port, addresses)
        return addresses

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve and check the host, and connect to the first of its addresses that answers."""
        addresses = list(await self.addresses(host.strip("[]"), port))[:_ADDRESSES]
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(str(addresses[-1]), port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no URL leads to a socket of this machine."""
        raise RefusedUrl("the URL leads to a socket of the machine")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
