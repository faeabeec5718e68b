"""The two pages of a worker: `/health` for orchestrators and `/metrics` for Prometheus, without a web framework."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as METRICS_TYPE

from avatar.errors import Unavailable

READ_SECONDS = 5.0  # that a request may take to arrive
CHECK_SECONDS = 5.0  # that a check may take; orchestrators give up after a few seconds
_HEAD_BYTES = 8192
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

Check = Callable[[], Awaitable[None]]


@asynccontextmanager
async def pages(host: str, port: int, registry: CollectorRegistry, checks: Mapping[str, Check]) -> AsyncIterator[int]:
    """Serve the pages within the block, and yield the port; port 0 selects a free one.

    Args:
        checks: what `/health` reports on, by name; a check that fails raises Unavailable.

    Raises:
        OSError: the port cannot be opened.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            status, content_type, body = await _page(head, registry, checks)
            writer.write(
                f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            )
            if not head.startswith(b"HEAD "):
                writer.write(body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, host, port, limit=_HEAD_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _page(head: bytes, registry: CollectorRegistry, checks: Mapping[str, Check]) -> tuple[int, str, bytes]:
    """Return the status, the Content-Type and the body of the response."""
    method, _, rest = head.partition(b" ")
    path = rest.split(b" ", 1)[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return 405, "text/plain", b"only GET\n"
    if path == b"/metrics":
        return 200, METRICS_TYPE, generate_latest(registry)
    if path == b"/health":
        faults = {name: fault for name, check in checks.items() if (fault := await _fault(check))}
        body = json.dumps({"status": "failing" if faults else "ok", "faults": faults})
        return 503 if faults else 200, "application/json", body.encode()
    return 404, "text/plain", b"GET /health or /metrics\n"


async def _fault(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"
    except Unavailable as error:
        return str(error)
    return ""
