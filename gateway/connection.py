"""HTTP connections with bounds: uvicorn's protocol has none for a silent client, and none for one that does not read.

A connection has a limited time for the head of each request and for taking in each response, there is a limit of
connections, and one address may have half of them. A request's body has its own limits: `gateway.uploads`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import socket
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import h11
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .clients import client_key
from .codes import ErrorCode
from .connection_pool import ConnectionPool, Reason
from .errors import error_body, has_body
from .socket_connection import LIVE_PATH, SocketConnection

logger = logging.getLogger(__name__)

ABORT = "abort_connection"  # key of the request's state: closes the connection at once, whatever is still unsent
REFUSAL_SECONDS = 2.0  # for the head of a request that is refused, and for the rest of its body
RETRY_AFTER = 5  # seconds
PROBE_SECONDS = (0.25, 0.5, 1.0, 2.0, 5.0)  # between two probes of a client that has shut down its sending side


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
        self.ws_protocol_class = cast("type[asyncio.Protocol]", partial(SocketConnection, upgraded=self))
        self._is_socket = False
        self._pool = pool
        self._head_seconds = pool.limits.head_seconds
        self._min_rate = pool.limits.min_rate
        self._key = ""
        self._refusal: Reason | None = None
        self._timer: asyncio.TimerHandle | None = None  # runs while the head of a request is awaited
        self._send_timer: asyncio.TimerHandle | None = None  # runs while the client does not take in what was sent
        self._probe_timer: asyncio.TimerHandle | None = None  # runs while a client has shut down its sending side
        self._probes = 0
        self._unread = 0  # bytes of a body that were received after its request was answered
        self._answered = 0.0  # when that was

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and start the time for its first request."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, ABORT: self._abort}
        _send_at_once(transport)
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
        self._stop_probe_timer()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the response to a whole request: a client may shut down its sending side only.

        A client that has gone away looks the same. Only what is written to it tells them apart: `_probe`.
        """
        cycle = self.cycle
        if self.transport.is_closing() or cycle is None or cycle.response_complete or cycle.more_body:
            return False
        if self.conn.their_http_version != b"1.1":  # it may not know the response that probes are
            return False
        cycle.keep_alive = False
        if self._probe_timer is None:
            self._probe()
        return True

    def data_received(self, data: bytes) -> None:
        """Read the data; the first byte of a head starts the time for it, and its end stops it."""
        super().data_received(data)
        if self._is_socket:
            return
        if self._discards_body:
            self._unread += len(data)
        self._watch_head(expected=True)
        self._close_refused()

    def on_response_complete(self) -> None:
        """Start the time for the rest of a body that nobody waits for any more."""
        super().on_response_complete()
        self._unread, self._answered = 0, self.loop.time()
        self._watch_head(expected=self._discards_body or bool(self.conn.trailing_data[0]))
        self._close_refused()

    def pause_writing(self) -> None:
        """Start the time in which the client has to take in what was sent."""
        super().pause_writing()
        self._stop_send_timer()
        self._send_timer = self.loop.call_later(self._pool.limits.send_seconds, self._on_unread_response)

    def resume_writing(self) -> None:
        """Stop that time."""
        super().resume_writing()
        self._stop_send_timer()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Leave the connection to a `SocketConnection`; it stays counted here."""
        self._is_socket = True
        self._stop_timer()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP in the form of every other error."""
        self._answer(HTTPStatus.BAD_REQUEST, "invalid HTTP request")

    def _should_upgrade(self) -> bool:
        return self._refusal is None and self.scope["path"] == LIVE_PATH and super()._should_upgrade()

    @property
    def _discards_body(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY

    def _watch_head(self, *, expected: bool) -> None:
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            self._stop_timer()
        elif expected and self._timer is None:
            self._start_timer(self._head_seconds)

    def _close_refused(self) -> None:
        """Close a refused connection after its response: the next one of the client may be served."""
        if self._refusal and self.cycle is not None and self.cycle.response_complete and not self._discards_body:
            self.transport.close()

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

    def _stop_probe_timer(self) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None

    def _probe(self) -> None:
        """Write an interim response, which every client ignores; the system of one that has gone away rejects it."""
        self._probe_timer = None
        if self.transport.is_closing() or self.conn.our_state is not h11.SEND_RESPONSE:
            return
        interim = h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[], reason="Continue")
        self.transport.write(self.conn.send(interim) or b"")
        pause = PROBE_SECONDS[min(self._probes, len(PROBE_SECONDS) - 1)]
        self._probes += 1
        self._probe_timer = self.loop.call_later(pause, self._probe)

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


def _send_at_once(transport: asyncio.Transport) -> None:
    """Switch Nagle's algorithm off, which holds small messages back for 40 ms; asyncio misses accepted sockets."""
    peer = transport.get_extra_info("socket")
    if peer is not None and peer.family in (socket.AF_INET, socket.AF_INET6):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def _refuse_all(scope: Scope, receive: Receive, send: Send) -> None:
    await _refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again later", scope, receive, send)


async def _refuse_client(scope: Scope, receive: Receive, send: Send) -> None:
    detail = "too many connections from one address; close some of them"
    await _refuse(HTTPStatus.TOO_MANY_REQUESTS, detail, scope, receive, send)


async def _refuse(status: HTTPStatus, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Retry-After": str(RETRY_AFTER), "X-Content-Type-Options": "nosniff"}
    if not has_body(scope):
        headers["Connection"] = "close"  # with a body this would cut the client off before it has read the answer
    code = ErrorCode.BUSY if status == HTTPStatus.SERVICE_UNAVAILABLE else ErrorCode.TOO_MANY_REQUESTS
    await JSONResponse(error_body(scope["path"], detail, code), status, headers)(scope, receive, send)
