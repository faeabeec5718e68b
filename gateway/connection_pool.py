"""Count the connections of the server, and say which of them are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

BACKLOG = 128  # connections that one step of the event loop accepts at most; they are there before they are counted
MAX_REFUSED = 64  # connections that are answered with a refusal; more are closed without an answer

Reason = Literal["head", "limit", "client_limit", "slow_upload", "slow_download"]
REASONS: tuple[Reason, ...] = ("head", "limit", "client_limit", "slow_upload", "slow_download")


@dataclass(frozen=True)
class ConnectionLimits:
    """What the connections of a server may have.

    Attributes:
        most: connections at the same time.
        most_per_client: those of one address that is not a trusted proxy.
        head_seconds: for the head of a request, from its first byte, or from the start of the connection.
        send_seconds: in which the client must take in what was sent last.
        min_rate: bytes per second of a body that is still sent after its request was answered.
    """

    most: int
    most_per_client: int
    head_seconds: float
    send_seconds: float
    min_rate: float


class ConnectionPool:
    """Counts the open connections of a server, and says which of them are refused.

    A refused connection does not count as one that is served: so a client that opens many takes no place of another.

    Args:
        limits: of this server.
        is_proxy: whether an address is that of a trusted proxy, which carries the requests of many clients.
        on_closed: called with the reason for each connection that the server ends.
    """

    def __init__(
        self, limits: ConnectionLimits, is_proxy: Callable[[str], bool], on_closed: Callable[[Reason], None]
    ) -> None:
        self.limits = limits
        self.on_closed = on_closed
        self._is_proxy = is_proxy
        self._served: Counter[str] = Counter()
        self._refused = 0

    @property
    def open(self) -> int:
        """Number of open connections."""
        return self._served.total() + self._refused

    @property
    def overfull(self) -> bool:
        """Whether not even one more connection is answered with a refusal."""
        return self._refused > MAX_REFUSED

    def add(self, client: str, address: str) -> Reason | None:
        """Count a connection; return why it is refused, if it is."""
        reason: Reason | None = None
        if self._served.total() >= self.limits.most:
            reason = "limit"
        elif self._served[client] >= self.limits.most_per_client and not self._is_proxy(address):
            reason = "client_limit"
        if reason:
            self._refused += 1
        else:
            self._served[client] += 1
        return reason

    def remove(self, client: str, reason: Reason | None) -> None:
        """Count a connection as closed; `reason` is what `add` returned."""
        if reason:
            self._refused -= 1
            return
        self._served[client] -= 1
        if not self._served[client]:
            del self._served[client]
