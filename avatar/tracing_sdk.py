"""Traces by the SDK of OpenTelemetry, sent to a collector by OTLP over HTTP. Only `avatar.tracing` imports this.

The standard variables (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_…,
OTEL_EXPORTER_OTLP_HEADERS, …) are read by the SDK itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .tracing import Kind, Span, Stage, Value, prefixed

logger = logging.getLogger("avatar.tracing")

STOP_SECONDS = 2.0  # for the last spans to be sent
PATH = "/v1/traces"

_KINDS: Mapping[Kind, trace.SpanKind] = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
}
_BEGIN_TRACES: tuple[Kind, ...] = ("server", "consumer")
_UNNAMED = "unknown_service"  # what the SDK calls a process without OTEL_SERVICE_NAME
_PROPAGATOR = TraceContextTextMapPropagator()
_HEADER = "traceparent"


class SdkTracer:
    """Implements `avatar.tracing.Tracer`."""

    def __init__(self, endpoint: str, service: str, stop_seconds: float = STOP_SECONDS) -> None:
        """Start the thread that sends spans; the collector is not asked whether it is there."""
        self._stop_seconds = stop_seconds
        # one line of ours says that spans are not sent, in place of one for each try
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        url = endpoint.rstrip("/") + PATH
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, _UNNAMED)).startswith(_UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        installed = version("talking-avatar")
        resource = Resource({SERVICE_VERSION: installed}).merge(resource)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_LoggedExporter(OTLPSpanExporter(endpoint=url), url)))
        self._tracer = self._provider.get_tracer("talking-avatar", installed)

    @contextmanager
    def span(
        self, name: str, kind: Kind, parent: str | None, start: datetime | None, attributes: Mapping[str, Value]
    ) -> Iterator[Span]:
        """As `avatar.tracing.span`."""
        if parent is not None:
            above = _PROPAGATOR.extract({_HEADER: parent}, Context())
        else:  # what the server does for a request may run in the context of an earlier one of the same connection
            above = Context() if kind in _BEGIN_TRACES else contexts.get_current()
        if kind not in _BEGIN_TRACES and not _is_traced(above):
            yield _Span(trace.INVALID_SPAN)
            return
        begun = self._tracer.start_span(
            name, above, _KINDS[kind], attributes, start_time=_nanoseconds(start) if start else None
        )
        try:
            with _current(trace.set_span_in_context(begun, above), begun):
                yield _Span(begun)
        finally:
            begun.end()

    def stages(self) -> Callable[[str], Stage]:
        """As `avatar.tracing.stages`."""
        above = contexts.get_current()
        if not _is_traced(above):
            return lambda name: _Stage(trace.INVALID_SPAN, Context())
        return lambda name: _Stage(self._tracer.start_span(name, above, attributes={"avatar.stage": name}), above)

    def traceparent(self, *, sampled_only: bool) -> str | None:
        """As `avatar.tracing.traceparent`."""
        current = trace.get_current_span().get_span_context()
        if not current.is_valid or (sampled_only and not current.trace_flags.sampled):
            return None
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get(_HEADER)

    def trace_id(self) -> str:
        """As `avatar.tracing.trace_id`."""
        current = trace.get_current_span().get_span_context()
        return trace.format_trace_id(current.trace_id) if current.is_valid else ""

    def stop(self) -> None:
        """As `avatar.tracing.stop`; what a collector does not take in time is lost."""
        stopping = threading.Thread(target=self._provider.shutdown, name="stop-traces", daemon=True)
        stopping.start()
        stopping.join(self._stop_seconds)
        if stopping.is_alive():
            logger.warning("the last traces were not sent within %g s", self._stop_seconds)


class _Span:
    """Implements `avatar.tracing.Span`."""

    def __init__(self, begun: trace.Span) -> None:
        self._span = begun

    def set(self, standard: Mapping[str, Value] = {}, /, **own: Value) -> None:
        self._span.set_attributes({**standard, **prefixed(own)})

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, reason: str) -> None:
        self._span.set_status(trace.StatusCode.ERROR, reason)


class _Stage:
    """Implements `avatar.tracing.Stage`."""

    def __init__(self, begun: trace.Span, above: Context) -> None:
        self._span, self._context = begun, trace.set_span_in_context(begun, above)
        self._last = time.time_ns()

    @contextmanager
    def current(self) -> Iterator[None]:
        try:
            with _current(self._context, self._span):
                yield
        finally:
            self._last = time.time_ns()

    def end(self, **own: Value) -> None:
        self._span.set_attributes(prefixed(own))
        self._span.end(self._last)


class _LoggedExporter(SpanExporter):
    """Says once when spans are lost, and once when they are sent again."""

    def __init__(self, exporter: SpanExporter, url: str) -> None:
        self._exporter, self._url = exporter, url
        self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        works = result is SpanExportResult.SUCCESS
        if works is not self._works:
            self._works = works
            if works:
                logger.info("traces are sent to %s again", self._url)
            else:
                logger.warning("traces cannot be sent to %s and are lost; nothing else is affected", self._url)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


@contextmanager
def _current(context: Context, begun: trace.Span) -> Iterator[None]:
    """Make a span current within the block, and note on it which error leaves the block: its class, no text of it."""
    token = contexts.attach(context)
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        begun.set_attribute("avatar.cancelled", True)
        raise
    except BaseException as error:
        begun.set_attribute("error.type", type(error).__qualname__)
        begun.set_status(trace.StatusCode.ERROR, type(error).__qualname__)
        raise
    finally:
        contexts.detach(token)


def _is_traced(context: Context) -> bool:
    return trace.get_current_span(context).get_span_context().is_valid


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6) * 1000
