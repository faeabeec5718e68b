"""A gateway in a real server on the event loop of a test, and a proxy that cuts the connections to one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from gateway.app import create_app
from gateway.server import Server, listen
from gateway.settings import Settings
from tests.support.gateway_fakes import ReadyModels, eventually


@asynccontextmanager
async def live_gateway(render: Any, **settings: Any) -> AsyncIterator[str]:
    """Yield the URL of a gateway with a fake render; its jobs can be submitted when the block starts."""
    options = Settings(shutdown_grace=0.2, **settings)
    app = create_app(options, ReadyModels(), render)
    server = Server(app, options)
    listener = listen("127.0.0.1", 0)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    await eventually(lambda: app.state.service.v1.schema.ready)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 30)


@dataclass
class Proxy:
    """Forwards connections, and cuts some of them.

    Attributes:
        cut_after: for the next connections: bytes of the response after which each is cut.
        heads: the first bytes of each request.
    """

    target: str
    port: int = 0
    cut_after: list[int] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut all connections."""
        for writer in self._open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limit = self.cut_after.pop(0) if self.cut_after else None
        number = len(self.heads)
        self.heads.append(b"")
        host, port = self.target.removeprefix("http://").split(":")
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        self._open |= {writer, up_writer}

        async def up() -> None:
            while data := await reader.read(1 << 16):
                self.heads[number] += data[:2000]
                up_writer.write(data)
                await up_writer.drain()

        async def down() -> None:
            left = limit
            while data := await up_reader.read(1 << 14):
                if left is not None:
                    data, left = data[:left], left - len(data[:left])
                writer.write(data)
                await writer.drain()
                if left == 0:
                    writer.transport.abort()
                    return

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[1].done():
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(tasks[1]), 0.1)
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await task
        for each in (writer, up_writer):
            self._open.discard(each)
            each.close()


@asynccontextmanager
async def proxy_to(target: str) -> AsyncIterator[Proxy]:
    """Yield a proxy on a free port."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
