"""A live session is one span, in the trace of its caller, and Triton's first request belongs to it."""

import logging
from collections.abc import Iterator

import pytest

from avatar import tracing
from tests.gateway.live.conftest import Talk
from tests.support.fake_live import FakeLive
from tests.support.gateway_fakes import eventually
from tests.support.live_callers import calling
from tests.support.otlp_receiver import OtlpReceiver, otlp_receiver

TRACE, ABOVE = "ab" * 16, "cd" * 8


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as running:
        tracing.start(running.endpoint, "tests")
        yield running
        tracing.stop()


async def test_a_session_continues_the_trace_of_its_caller(
    talk: Talk, models: FakeLive, receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.access")
    gateway = await talk()
    headers = {"traceparent": f"00-{TRACE}-{ABOVE}-01", "X-Request-ID": "order-4711"}
    async with calling(gateway.url, additional_headers=headers) as caller:
        await caller.start()
        await caller.send("clear")
        await caller.mark("cleared")
    # the span ends in the same step of the event loop
    await eventually(lambda: "GET /v1/live 101" in caplog.text)
    tracing.stop()
    (span,) = [each for each in receiver.spans if each.name == "GET /v1/live"]
    assert (span.trace, span.parent, span.kind) == (TRACE, ABOVE, "server")
    assert span.attributes["http.response.status_code"] == 101
    assert span.attributes["avatar.request_id"] == "order-4711"
    assert not span.is_error
    first, *later = models.traceparents
    assert first == f"00-{TRACE}-{span.id}-01"
    assert not any(later)  # a session has a request every few milliseconds
