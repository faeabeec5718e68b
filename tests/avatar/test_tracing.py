"""Traces: off without a trace of the SDK, on into a real collector, and harmless where the collector is broken."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from avatar import tracing
from avatar.timing import StageTimer
from avatar.tracing_sdk import SdkTracer
from jobs.logging_config import make_handler
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver

TRACE, ABOVE = "ab" * 16, "cd" * 8
TRACEPARENT = f"00-{TRACE}-{ABOVE}-01"
NOT_SAMPLED = f"00-{TRACE}-{ABOVE}-00"


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as running:
        yield running


def spans_of(receiver: OtlpReceiver) -> dict[str, ReceivedSpan]:
    """Return what was received after the end of the traces, by name."""
    tracing.stop()
    spans = receiver.spans
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def test_without_a_collector_no_sdk_of_opentelemetry_is_imported_and_nothing_is_sent() -> None:
    code = """
import sys
import gateway.server, jobs.worker, avatar.pipeline, avatar.serving.live_model, avatar.serving.render_model
from avatar import tracing
with tracing.exporting(None, "x"), tracing.span("a", kind="server", own=1) as span:
    span.set(more=2), span.rename("b"), span.fail("c")
    with tracing.infer_span("s3fd", "host:1", batch=1, size=2, shared_memory=False) as call:
        assert call.headers is None and call.request_id == ""
    assert tracing.traceparent() is None and tracing.trace_id() == ""
loaded = ("avatar.tracing_sdk", "opentelemetry.sdk", "opentelemetry.exporter")  # FastAPI loads the bare API itself
assert not [name for name in sys.modules if name.startswith(loaded)]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_span_knows_its_parent_its_attributes_and_its_error(receiver: OtlpReceiver) -> None:
    tracing.start(receiver.endpoint, "tests")
    with tracing.span("outer", {"http.route": "/"}, kind="server", parent=TRACEPARENT, frames=3) as outer:
        assert tracing.trace_id() == TRACE
        outer.rename("POST /")
        with pytest.raises(ValueError), tracing.span("inner"):
            raise ValueError("a secret")
    spans = spans_of(receiver)
    assert (spans["POST /"].trace, spans["POST /"].parent, spans["POST /"].kind) == (TRACE, ABOVE, "server")
    assert spans["POST /"].attributes == {"http.route": "/", "avatar.frames": 3}
    assert spans["POST /"].service == "tests"
    assert (spans["inner"].trace, spans["inner"].parent) == (TRACE, spans["POST /"].id)
    assert (spans["inner"].is_error, spans["inner"].error) == (True, "ValueError")  # the text may be of a caller
    assert not spans["POST /"].is_error


def test_a_span_may_have_begun_before_its_block(receiver: OtlpReceiver) -> None:
    tracing.start(receiver.endpoint, "tests")
    begun = datetime.now(UTC) - timedelta(seconds=90)
    with tracing.span("queue", start=begun, parent=TRACEPARENT):
        pass
    queue = spans_of(receiver)["queue"]
    assert queue.start == pytest.approx(begun.timestamp(), abs=1e-3)
    assert queue.end > queue.start + 89


async def test_a_stage_is_one_span_with_the_calls_of_all_its_blocks(receiver: OtlpReceiver) -> None:
    tracing.start(receiver.endpoint, "tests")

    async def call(timer: StageTimer, stage: str, model: str) -> None:
        with timer.stage(stage), tracing.infer_span(model, "[::1]:8001", batch=2, size=64, shared_memory=True) as along:
            assert along.headers is not None and along.headers["traceparent"].startswith(f"00-{TRACE}-")
            await asyncio.sleep(0.01)

    with tracing.span("job", parent=TRACEPARENT):
        timer = StageTimer()
        with timer.stage("speech"):  # a task inherits the span of the stage that starts it, and is none of its part
            detection = asyncio.create_task(call(timer, "detection", "s3fd"))
            await asyncio.gather(detection, call(timer, "generation", "wav2lip"))
        await call(timer, "generation", "wav2lip_gan")
        timer.close()
    spans = spans_of(receiver)
    assert {spans[name].parent for name in ("speech", "detection", "generation")} == {spans["job"].id}
    assert spans["infer s3fd"].parent == spans["detection"].id
    assert {spans[f"infer {each}"].parent for each in ("wav2lip", "wav2lip_gan")} == {spans["generation"].id}
    assert spans["generation"].end >= spans["infer wav2lip_gan"].end
    assert spans["generation"].attributes["avatar.busy_seconds"] == pytest.approx(timer.seconds["generation"], abs=1e-5)
    called = spans["infer s3fd"]
    assert called.kind == "client"
    assert called.attributes == {
        "rpc.system": "grpc",
        "server.address": "::1",
        "server.port": 8001,
        "avatar.model": "s3fd",
        "avatar.request_id": "",
        "avatar.batch": 2,
        "avatar.bytes": 64,
        "avatar.shared_memory": True,
    }


async def test_work_that_is_cancelled_is_no_error(receiver: OtlpReceiver) -> None:
    tracing.start(receiver.endpoint, "tests")
    with pytest.raises(asyncio.CancelledError), tracing.span("job", kind="consumer"):
        raise asyncio.CancelledError
    job = spans_of(receiver)["job"]
    assert not job.is_error and job.attributes == {"avatar.cancelled": True}


def test_a_trace_that_its_caller_does_not_record_is_passed_on_and_not_sent(receiver: OtlpReceiver) -> None:
    tracing.start(receiver.endpoint, "tests")
    with tracing.span("job", parent=NOT_SAMPLED):
        passed_on = tracing.traceparent()
        assert passed_on is not None and passed_on.endswith("-00")
        with tracing.infer_span("s3fd", "host:1", batch=1, size=1, shared_memory=False) as call:
            assert call.headers is None
    assert not spans_of(receiver)


@pytest.mark.parametrize("parent", ["", "00-zz-1-01", "x" * 5000, f"00-{'0' * 32}-{ABOVE}-01"])
def test_a_traceparent_that_is_none_starts_a_new_trace(parent: str, receiver: OtlpReceiver) -> None:
    tracing.start(receiver.endpoint, "tests")
    with tracing.span("job", kind="server", parent=parent):
        pass
    job = spans_of(receiver)["job"]
    assert not job.parent and job.trace not in (TRACE, "0" * 32)


def test_a_request_without_a_traceparent_begins_a_trace_of_its_own(receiver: OtlpReceiver) -> None:
    tracing.start(receiver.endpoint, "tests")
    with tracing.span("first", kind="server"), tracing.span("second", kind="server"):
        pass
    spans = spans_of(receiver)
    assert not spans["second"].parent and spans["first"].trace != spans["second"].trace


async def test_work_outside_of_a_trace_begins_none(receiver: OtlpReceiver) -> None:
    tracing.start(receiver.endpoint, "tests")
    untraced = StageTimer()
    with tracing.span("job"), StageTimer().stage("decode"):
        assert tracing.trace_id() == ""
    infer = tracing.infer_span("s3fd", "", batch=1, size=1, shared_memory=True)
    with tracing.span("request", kind="server"), untraced.stage("speech"), infer as call:
        assert call.headers is None
    untraced.close()
    assert list(spans_of(receiver)) == ["request"]


def test_the_variables_of_opentelemetry_count(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    tracing.start(receiver.endpoint, "tests")
    with tracing.span("root", kind="server"):
        pass
    with tracing.span("sampled", parent=TRACEPARENT):
        pass
    spans = spans_of(receiver)
    assert list(spans) == ["sampled"]
    assert spans["sampled"].service == "mine"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_line_within_a_trace_has_its_id(form: str, receiver: OtlpReceiver) -> None:
    handler = make_handler("json" if form == "json" else "text")
    tracing.start(receiver.endpoint, "tests")
    token = tracing.request_id.set("request-9")
    try:
        with tracing.span("job", parent=TRACEPARENT):
            inside = _line(handler)
    finally:
        tracing.request_id.reset(token)
        tracing.stop()
    expected = f'"trace_id": "{TRACE}"' if form == "json" else f"[request-9 {TRACE}] "
    assert expected in inside and "request-9" in inside
    assert "trace_id" not in _line(handler) and TRACE not in _line(handler)


def _line(handler: logging.Handler) -> str:
    record = logging.LogRecord("avatar", logging.INFO, "x.py", 1, "hello", None, None)
    handler.filter(record)
    return handler.format(record)


def test_a_collector_that_is_away_costs_a_warning_and_a_short_stop(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and never answers
        tracer = SdkTracer(f"http://127.0.0.1:{silent.getsockname()[1]}", "tests", stop_seconds=0.2)
        for _ in range(5000):  # more than are kept
            with tracer.span("job", "server", None, None, {}):
                pass
        begun = time.monotonic()
        tracer.stop()
        assert time.monotonic() - begun < 5
    assert "the last traces were not sent within 0.2 s" in caplog.text


def test_a_span_after_the_end_of_the_traces_does_nothing(receiver: OtlpReceiver) -> None:
    with tracing.exporting(receiver.endpoint, "tests"):
        pass
    with tracing.span("job"):
        assert tracing.trace_id() == ""
    assert not receiver.spans


def test_a_collector_that_comes_back_gets_traces_again(caplog: pytest.LogCaptureFixture) -> None:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    from avatar.tracing_sdk import _LoggedExporter

    results = [SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS]

    class Flaky(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return results.pop(0)

    caplog.set_level(logging.INFO)
    exporter = _LoggedExporter(Flaky(), "http://collector:4318/v1/traces")
    for _ in range(3):
        exporter.export([])
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "cannot be sent to http://collector:4318/v1/traces" in caplog.text
