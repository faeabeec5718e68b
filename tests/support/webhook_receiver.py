"""A real HTTP server that receives webhooks, and answers as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

HANG = 0  # instead of a status: never answer


@dataclass(frozen=True)
class Message:
    """A webhook as it arrived; the names of headers are in small letters."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What arrived, and the statuses of the next answers; 204 when there are no more."""

    port: int = 0
    host: str = "127.0.0.1"
    answers: list[int] = field(default_factory=list)
    location: str = ""
    messages: list[Message] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hook"

    async def wait(self, number: int) -> list[Message]:
        """Return the messages as soon as there are `number` of them."""
        async with asyncio.timeout(30), self.arrived:
            await self.arrived.wait_for(lambda: len(self.messages) >= number)
        return self.messages

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            message = await _read(reader)
            status = self.answers.pop(0) if self.answers else 204
            async with self.arrived:
                self.messages.append(message)
                self.arrived.notify_all()
            if status == HANG:
                await reader.read()  # until the sender gives up
                return
            location = f"Location: {self.location}\r\n" if self.location else ""
            writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n{location}Connection: close\r\n\r\n".encode())
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Message:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Message(request.split()[1], headers, await reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def receiving(host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """Yield a receiver on a free port."""
    receiver = Receiver(host=host)
    server = await asyncio.start_server(receiver.serve, host, 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


async def becomes(value: Callable[[], Awaitable[bool]]) -> None:
    """Return when `value` is true; fail if it does not become true."""
    async with asyncio.timeout(30):
        while not await value():  # noqa: ASYNC110 - the database has no event for it
            await asyncio.sleep(0.02)
