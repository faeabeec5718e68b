"""Which of several servers a call or a stream uses: in turn, without those that have failed a moment ago."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from ._connection import Connection
from ._errors import Cancelled
from ._infer import InferCaller
from ._schema import Array, Model
from ._shared_memory import GrpcRegionRegistry, SharedMemoryPool
from .access import Token

AWAY_SECONDS = 5.0  # for which a server that failed is used only if all have failed
RESOLVE_SECONDS = 5.0  # for which the addresses of a name count
DNS = "dns:///"

Lookup = Callable[[str, int], Sequence[str]]


@dataclass(eq=False)
class Server:
    """One server, with its own shared memory, and until when it is passed over."""

    connection: Connection
    memory: SharedMemoryPool | None
    caller: InferCaller
    away_until: float = float("-inf")

    @classmethod
    def connect(cls, address: str, timeout: float, retries: int, token: Token | None) -> Server:
        """Make a server, to which the first call connects; without a token there is no shared memory."""
        connection = Connection.connect(address, timeout, retries)
        memory = None if token is None else SharedMemoryPool(GrpcRegionRegistry(connection.stub, token))
        return cls(connection, memory, InferCaller(connection, memory))

    def close(self) -> None:
        """Release the shared memory, and close the connection."""
        if self.memory:
            self.memory.close()
        self.connection.channel.close()


def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name, of one family: a server with addresses of both would count twice."""
    found = [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    return [each for each in found if ":" not in each] or [f"[{each}]" for each in found]


class Rotation:
    """The servers of one client. Thread-safe.

    Attributes:
        addresses: what the caller gave.
    """

    def __init__(self, addresses: Sequence[str], connect: Callable[[str], Server], lookup: Lookup = look_up) -> None:
        """Make a rotation without connections.

        Args:
            addresses: host:port each; `dns:///name:port` is all addresses of the name, looked up again and again.
            connect: makes the server of an address.
            lookup: resolves names.
        """
        self.addresses, self._connect, self._lookup = addresses, connect, lookup
        self._lock = threading.Lock()
        self._servers: dict[str, Server] = {}
        self._gone: list[Server] = []  # no longer addresses of the name; streams may still use them
        self._looked_up_at = float("-inf")
        self._turn = 0
        self._closed = False

    def next(self, but: Container[Server] = ()) -> Server:
        """Return the server whose turn it is; one of `but` only if there is no other.

        Raises:
            Cancelled: the client was closed.
        """
        found = self._resolve() if self._is_old() else None
        with self._lock:
            if self._closed:
                raise Cancelled("the client was closed")
            if found is not None:
                self._replace(found)
            now = time.monotonic()
            servers = [each for each in self._servers.values() if each not in but] or self.servers
            usable = [each for each in servers if each.away_until <= now]
            # where all have failed, the one that failed first is the most likely to be back
            server = usable[self._turn % len(usable)] if usable else min(servers, key=lambda each: each.away_until)
            self._turn += 1
            return server

    def each(self) -> Iterator[Server]:
        """Yield the servers in the order in which `next` returns them, each once. Raises as `next`."""
        tried: list[Server] = []
        while not tried or len(tried) < len(self.servers):
            tried.append(self.next(tried))
            yield tried[-1]

    @property
    def servers(self) -> list[Server]:
        """The servers, as far as they are known; `next` finds them."""
        return list(self._servers.values())

    def failed(self, server: Server) -> bool:
        """Pass over a server for some seconds: whether there is another one, so that a call need not wait."""
        with self._lock:
            now = time.monotonic()
            server.away_until = now + AWAY_SECONDS
            self._looked_up_at = float("-inf")  # a server that is gone may have a successor
            return any(each.away_until <= now for each in self._servers.values())

    def wait_connected(self, seconds: float) -> bool:
        """Wait until one of the servers is connected: whether one is.

        While nothing waits, gRPC goes on with a connection only every five seconds, and calls fail meanwhile.

        Raises:
            Cancelled: the client was closed.
        """
        self.next()  # finds the servers
        is_connected = threading.Event()
        waiting = [grpc.channel_ready_future(each.connection.channel) for each in self.servers]
        for each in waiting:
            each.add_done_callback(lambda _: is_connected.set())
        try:
            return is_connected.wait(seconds)
        finally:
            for each in waiting:
                each.cancel()

    def infer(self, model: Model, *inputs: Array, output_shape: tuple[int, ...] | None = None) -> list[Array]:
        """Make one inference, as `InferCaller.infer`; where a server cannot be reached, another one is called.

        Raises:
            AvatarClientError: the call failed.
        """
        server = self.next()
        state = server.connection.retry_state()
        while True:
            try:
                return server.caller.infer(model, *inputs, output_shape=output_shape, seconds=state.seconds_left)
            except grpc.FutureCancelledError:
                raise Cancelled("the client was closed") from None
            except grpc.RpcError as error:
                time.sleep(state.pause(error, server.connection, self.failed_by(server, error)))
                server = self.next()

    def failed_by(self, server: Server, error: grpc.RpcError) -> bool:
        """As `failed`, if this error says that the server is away."""
        return error.code() == grpc.StatusCode.UNAVAILABLE and self.failed(server)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._closed = True
            servers = [*self._servers.values(), *self._gone]
        for server in servers:
            server.close()

    def _is_old(self) -> bool:
        with self._lock:
            changes = any(each.startswith(DNS) for each in self.addresses)
            return not self._servers or (changes and time.monotonic() - self._looked_up_at > RESOLVE_SECONDS)

    def _resolve(self) -> list[str] | None:
        """Return host:port of each server; None where a name cannot be resolved, and the known servers stay."""
        found: list[str] = []
        for address in self.addresses:
            host, _, port = address[len(DNS) :].rpartition(":")
            if not address.startswith(DNS):
                found.append(address)
                continue
            try:
                found += [f"{each}:{port}" for each in sorted(self._lookup(host, int(port)))]
            except (OSError, ValueError):
                if self._servers:
                    return None
                found.append(address)  # gRPC tries it, too, and its error says why it cannot
        return list(dict.fromkeys(found))

    def _replace(self, addresses: list[str]) -> None:
        self._looked_up_at = time.monotonic()
        for address in addresses:
            if address not in self._servers:
                self._servers[address] = self._connect(address)
        for address in self._servers.keys() - set(addresses):
            self._gone.append(self._servers.pop(address))


def addresses_of(given: str | Sequence[str]) -> list[str]:
    """Return the addresses that a caller gave: one, several separated by commas, or a sequence. Raises ValueError."""
    texts: list[Any] = given.split(",") if isinstance(given, str) else list(given)
    addresses = [text.strip() for text in texts if isinstance(text, str)]
    if not addresses or len(addresses) < len(texts) or any(not _is_address(each) for each in addresses):
        raise ValueError(f"host:port of Triton's gRPC expected, or several, got {given!r}")
    return list(dict.fromkeys(addresses))


def _is_address(text: str) -> bool:
    return bool(text) and not text.startswith(("http://", "https://"))
