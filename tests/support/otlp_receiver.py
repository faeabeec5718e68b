"""A collector of traces: a real HTTP server on 127.0.0.1 that decodes OTLP and keeps the spans."""

from __future__ import annotations

import base64
import gzip
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

WAIT_SECONDS = 60.0
KINDS = {
    SpanMessage.SPAN_KIND_INTERNAL: "internal",
    SpanMessage.SPAN_KIND_SERVER: "server",
    SpanMessage.SPAN_KIND_CLIENT: "client",
    SpanMessage.SPAN_KIND_PRODUCER: "producer",
    SpanMessage.SPAN_KIND_CONSUMER: "consumer",
}


@dataclass(frozen=True)
class ReceivedSpan:
    """One span: ids in hexadecimal, times in seconds since 1970."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start: float
    end: float
    attributes: Mapping[str, object]
    is_error: bool
    error: str


class OtlpReceiver:
    """What was received.

    Attributes:
        endpoint: for AVATAR_OTLP_ENDPOINT.
        requests: number of requests.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.requests = 0
        self._spans: list[ReceivedSpan] = []
        self._changed = threading.Condition()

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Return all spans so far, in the order of their arrival."""
        with self._changed:
            return list(self._spans)

    def wait(self, condition: Callable[[list[ReceivedSpan]], object]) -> list[ReceivedSpan]:
        """Return all spans as soon as the condition holds for them; fail after a minute."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self._spans), WAIT_SECONDS):
                raise AssertionError(f"these spans arrived: {sorted({(s.service, s.name) for s in self._spans})}")
            return list(self._spans)

    def add(self, request: ExportTraceServiceRequest) -> None:
        """Keep the spans of a request."""
        with self._changed:
            self.requests += 1
            for group in request.resource_spans:
                service = str(_mapping(group.resource.attributes).get("service.name", ""))
                self._spans += [_span(service, span) for scope in group.scope_spans for span in scope.spans]
            self._changed.notify_all()


def _mapping(pairs: Iterable[KeyValue]) -> dict[str, object]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def _span(service: str, span: SpanMessage) -> ReceivedSpan:
    return ReceivedSpan(
        service=service,
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start=span.start_time_unix_nano / 1e9,
        end=span.end_time_unix_nano / 1e9,
        attributes=_mapping(span.attributes),
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        error=span.status.message,
    )


def _decode(content_type: str, body: bytes) -> ExportTraceServiceRequest:
    if content_type.partition(";")[0] != "application/json":
        return ExportTraceServiceRequest.FromString(body)
    # Triton sends JSON, in which ids are hexadecimal; the JSON of protobuf takes them for base64
    request = Parse(body, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    for span in (span for group in request.resource_spans for scope in group.scope_spans for span in scope.spans):
        span.trace_id, span.span_id, span.parent_span_id = (
            bytes.fromhex(base64.b64encode(each).decode())
            for each in (span.trace_id, span.span_id, span.parent_span_id)
        )
    return request


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """Run a receiver within the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            known = self.path == "/v1/traces"
            if known:
                receiver.add(_decode(self.headers["Content-Type"], body))
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        receiver = OtlpReceiver(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
