"""HTTP connections with bounds: uvicorn's protocol has none for a silent client, and none for one that does not read.

A connection has a limited time for the head of each request and for taking in each response, there is a limit of
connections, and one address may have half of them. A request's body has its own limits: `gateway.uploads`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import h11
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .clients import client_key

logger = logging.getLogger(__name__)

ABORT = "abort_connection"  # key of the request's state: closes the connection at once, whatever is still unsent
BACKLOG = 128  # connections that one step of the event loop accepts at most; they are there before they are counted
MAX_REFUSED = 64  # connections that are answered with a refusal; more are closed without an answer
REFUSAL_SECONDS = 2.0  # for the head of a request that is answered with 503 only
RETRY_AFTER = 5  # seconds

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


class Connection(H11Protocol):
    """One connection; see the module. The base class is uvicorn's own, and only its documented hooks are used."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        pool: ConnectionPool,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._pool = pool
        self._head_seconds = pool.limits.head_seconds
        self._min_rate = pool.limits.min_rate
        self._key = ""
        self._refusal: Reason | None = None
        self._timer: asyncio.TimerHandle | None = None  # runs while the head of a request is awaited
        self._send_timer: asyncio.TimerHandle | None = None  # runs while the client does not take in what was sent
        self._unread = 0  # bytes of a body that were received after its request was answered
        self._answered = 0.0  # when that was

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and start the time for its first request."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, ABORT: self._abort}
        transport.set_write_buffer_limits(high=0)  # so that `pause_writing` tells of every byte that is not taken in
        address = self.client[0] if self.client else ""
        self._key = client_key(address)
        self._refusal = self._pool.add(self._key, address)
        if self._refusal:
            self._pool.on_closed(self._refusal)
            self.app = _refuse_all if self._refusal == "limit" else _refuse_client
            self._head_seconds, self._min_rate = REFUSAL_SECONDS, math.inf
        if self._refusal and self._pool.overfull:
            transport.abort()
        else:
            self._start_timer(self._head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection as closed."""
        super().connection_lost(exc)
        self._pool.remove(self._key, self._refusal)
        self._stop_timer()
        self._stop_send_timer()

    def data_received(self, data: bytes) -> None:
        """Read the data; the first byte of a head starts the time for it, and its end stops it."""
        super().data_received(data)
        if self._discards_body:
            self._unread += len(data)
        self._watch_head(expected=True)

    def on_response_complete(self) -> None:
        """Start the time for the rest of a body that nobody waits for any more."""
        super().on_response_complete()
        self._unread, self._answered = 0, self.loop.time()
        self._watch_head(expected=self._discards_body or bool(self.conn.trailing_data[0]))

    def pause_writing(self) -> None:
        """Start the time in which the client has to take in what was sent."""
        super().pause_writing()
        self._stop_send_timer()
        self._send_timer = self.loop.call_later(self._pool.limits.send_seconds, self._on_unread_response)

    def resume_writing(self) -> None:
        """Stop that time."""
        super().resume_writing()
        self._stop_send_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP in the form of every other error."""
        self._answer(HTTPStatus.BAD_REQUEST, "invalid HTTP request")

    @property
    def _discards_body(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY

    def _watch_head(self, *, expected: bool) -> None:
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            self._stop_timer()
        elif expected and self._timer is None:
            self._start_timer(self._head_seconds)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._on_late_head)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _on_late_head(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._discards_body:  # a client that sends its whole body before it reads the answer: as long as it is fast
            end = self._answered + self._head_seconds + self._unread / self._min_rate
            if end > self.loop.time():
                self._start_timer(end - self.loop.time())
                return
        self._pool.on_closed("slow_upload" if self._discards_body else "head")
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            seconds = f"{self._head_seconds:g} s"
            self._answer(HTTPStatus.REQUEST_TIMEOUT, f"the head of the request did not arrive within {seconds}")
        else:
            self.transport.close()

    def _on_unread_response(self) -> None:
        self._send_timer = None
        logger.info("a client took in nothing of its response for %g s", self._pool.limits.send_seconds)
        self._abort("slow_download")

    def _abort(self, reason: Reason) -> None:
        self._pool.on_closed(reason)
        self.transport.abort()

    def _answer(self, status: HTTPStatus, detail: str) -> None:
        """Answer without the application, and close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"detail": detail}).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("x-content-type-options", "nosniff"),
                ("connection", "close"),
            ]
            response = h11.Response(status_code=status, headers=headers, reason=status.phrase)
            for event in (response, h11.Data(body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


async def _refuse_all(scope: Scope, receive: Receive, send: Send) -> None:
    await _refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again later", scope, receive, send)


async def _refuse_client(scope: Scope, receive: Receive, send: Send) -> None:
    detail = "too many connections from one address; close some of them"
    await _refuse(HTTPStatus.TOO_MANY_REQUESTS, detail, scope, receive, send)


async def _refuse(status: HTTPStatus, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Retry-After": str(RETRY_AFTER), "X-Content-Type-Options": "nosniff"}
    if not {b"content-length", b"transfer-encoding"} & {name for name, _ in scope["headers"]}:
        headers["Connection"] = "close"  # with a body this would cut the client off before it has read the answer
    await JSONResponse({"detail": detail}, status, headers)(scope, receive, send)
