"""An HTTP server for tests, on a free port of a loopback address, in the event loop of the test.

A handler writes the raw bytes of its response, so a test can send what no HTTP library would:

    async with Origin({"/file": reply(b"content")}) as origin:
        ... f"{origin.url}/file" ...
        origin.requests[0].headers["host"]
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class Received:
    """A request: its method, its target, its headers (names in small letters), its body."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Handler = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


class Origin:
    """The server. Unknown paths are answered with 404; it ends its connections when the block is left."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        address: str = "127.0.0.1",
        port: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.handlers = dict(handlers)
        self._address = address
        self.port = port
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Return the URL of the server, by its address."""
        return self.url_of(self._address)

    def url_of(self, host: str) -> str:
        """Return the URL of the server under another name."""
        return f"{'https' if self._context else 'http'}://{host}:{self.port}"

    async def __aenter__(self) -> Origin:
        self._server = await asyncio.start_server(self._accept, self._address, self.port, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # a task that ends as cancelled is logged as an error by asyncio's streams in Python 3.11
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                request = await _read(reader)
                self.requests.append(request)
                await self.handlers.get(request.target, reply(b"", 404))(request, writer)
                await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def reply(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Handler:
    """Answer with a whole response."""

    async def handle(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, {"Content-Length": str(len(body)), **(headers or {})}) + body)

    return handle


def in_turn(*handlers: Handler) -> Handler:
    """Answer each request by the next handler; the last one answers all that follow."""
    left = list(handlers)

    async def handle(request: Received, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, writer)

    return handle


def redirect(location: str, status: int = 302) -> Handler:
    """Answer with a redirect."""
    return reply(b"", status, {"Location": location})


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the start of a response, up to its body."""
    lines = [f"HTTP/1.1 {status} Some Reason", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


async def _read(reader: asyncio.StreamReader) -> Received:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return Received(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))
