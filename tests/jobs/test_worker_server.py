"""The two pages of a worker."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from avatar.errors import Unavailable
from jobs import worker_server
from jobs.worker_server import pages


class Checks:
    """Checks of which one can fail or hang."""

    def __init__(self) -> None:
        self.fault: Unavailable | None = None
        self.hangs = False

    async def __call__(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fault:
            raise self.fault


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
async def port(checks: Checks) -> AsyncIterator[int]:
    registry = CollectorRegistry()
    Gauge("a_gauge", "A gauge.", registry=registry).set(3)
    async with pages("127.0.0.1", 0, registry, {"database": checks}) as port:
        yield port


async def _send(port: int, request: bytes) -> tuple[str, str]:
    """Return the status line and the body of the response to a raw request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head.partition("\r\n")[0], body


async def test_the_metrics_are_in_the_format_of_prometheus(port: int) -> None:
    status, body = await _send(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == "HTTP/1.1 200 OK" and "a_gauge 3.0" in body


async def test_the_health_page_names_what_fails(port: int, checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    request = b"GET /health?from=a-probe HTTP/1.1\r\n\r\n"
    assert await _send(port, request) == ("HTTP/1.1 200 OK", '{"status": "ok", "faults": {}}')
    checks.fault = Unavailable("the database does not answer")
    status, body = await _send(port, request)
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert json.loads(body) == {"status": "failing", "faults": {"database": "the database does not answer"}}
    monkeypatch.setattr(worker_server, "CHECK_SECONDS", 0.05)
    checks.hangs = True
    assert json.loads((await _send(port, request))[1])["faults"] == {"database": "no answer within 0.05 s"}


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
        (b"GET /other HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (b"POST /health HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        (b"\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        (bytes(10_000), ""),  # no head within the limit: the connection is closed
    ],
)
async def test_other_requests_are_answered_or_ended(port: int, request_head: bytes, status: str) -> None:
    answered, body = await _send(port, request_head)
    assert answered == status
    assert not (request_head.startswith(b"HEAD") and body)
