"""WebSockets with bounds: uvicorn's protocol, counted and timed as the HTTP connection that it takes over."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

LIVE_PATH = "/v1/live"  # the only WebSocket
MESSAGE_BYTES = 4 << 20  # of one message of a caller: 30 s of speech at 48 kHz have 2.9 MB
PING_SECONDS = 20.0  # between two pings, and for the answer to one: a caller that vanished is noticed

_MALFORMED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class SocketConnection(WebSocketsSansIOProtocol):
    """One WebSocket; it belongs to an HTTP connection, which counts it and ends it if its caller does not read."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], *, upgraded: asyncio.Protocol
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._upgraded = upgraded

    def data_received(self, data: bytes) -> None:
        """Read the data, and answer a handshake that the WebSocket library cannot read: it does not itself."""
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(_MALFORMED)
            self.transport.close()

    async def send(self, message: ASGISendEvent) -> None:
        """Send the application's message; a rejection completes the handshake, which uvicorn would log as missing."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection as closed."""
        super().connection_lost(exc)
        self._upgraded.connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the time in which the caller has to take in what was sent."""
        super().pause_writing()
        self._upgraded.pause_writing()

    def resume_writing(self) -> None:
        """Stop that time."""
        super().resume_writing()
        self._upgraded.resume_writing()
