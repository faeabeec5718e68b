"""Traces: what a form or a job does, and when, as spans of OpenTelemetry. Off until `start` gets a collector.

This is all that the rest of the code knows of OpenTelemetry. The SDK is used in `avatar.tracing_sdk`, which is imported
only where traces are on; otherwise every span is one shared object that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import Literal, Protocol

Value = str | int | float | bool
Kind = Literal["internal", "server", "client", "producer", "consumer"]

# Tasks and threads that are started for a request or a job inherit the value. Log lines and calls of Triton carry it.
request_id: ContextVar[str] = ContextVar("request_id", default="-")

_NO_ATTRIBUTES: Mapping[str, Value] = {}


class Span(Protocol):
    """A span that has begun; it ends with its block, and is marked as failed by an error that leaves the block."""

    def set(self, standard: Mapping[str, Value] = _NO_ATTRIBUTES, /, **own: Value) -> None:
        """Add attributes: those of OpenTelemetry's conventions by their names, ours without their prefix `avatar.`."""

    def rename(self, name: str) -> None:
        """Change the name."""

    def fail(self, reason: str) -> None:
        """Mark the span as failed."""


class Stage(Protocol):
    """A span that is current in several blocks, which may overlap."""

    def current(self) -> AbstractContextManager[None]:
        """Make it current within the block; it lasts until the end of the last of its blocks."""

    def end(self, **own: Value) -> None:
        """End it, at the time at which its last block ended."""


class InferCall(Protocol):
    """What a call of Triton sends along."""

    @property
    def headers(self) -> dict[str, str] | None:
        """Return the gRPC metadata; None where there is nothing to send."""

    @property
    def request_id(self) -> str:
        """Return Triton's request id, which is ours; empty outside of requests."""


class Tracer(Protocol):
    """What `avatar.tracing_sdk` implements."""

    def span(
        self, name: str, kind: Kind, parent: str | None, start: datetime | None, attributes: Mapping[str, Value]
    ) -> AbstractContextManager[Span]:
        """Record the block, as the function `span`."""

    def stages(self) -> Callable[[str], Stage]:
        """Return what begins a stage, as the function `stages`."""

    def traceparent(self, *, sampled_only: bool) -> str | None:
        """Return the `traceparent` of the current span, as the function `traceparent`."""

    def trace_id(self) -> str:
        """Return the id of the current trace, or an empty text."""

    def stop(self) -> None:
        """Send what waits, for a few seconds at most."""


class _Nothing:
    """Every span, while traces are off."""

    def set(self, standard: Mapping[str, Value] = _NO_ATTRIBUTES, /, **own: Value) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass

    def current(self) -> AbstractContextManager[None]:
        return _IN_NOTHING

    def end(self, **own: Value) -> None:
        pass

    @property
    def headers(self) -> dict[str, str] | None:
        return None

    @property
    def request_id(self) -> str:
        return triton_request_id()


class _Call(_Nothing):
    """A call of Triton, while traces are on."""

    @property
    def headers(self) -> dict[str, str] | None:
        parent = traceparent(sampled_only=True)
        return {"traceparent": parent} if parent else None


_NOTHING = _Nothing()
_CALL = _Call()
_IN_NOTHING: AbstractContextManager[None] = nullcontext()
_AS_NOTHING: AbstractContextManager[_Nothing] = nullcontext(_NOTHING)
_tracer: Tracer | None = None


def start(endpoint: str | None, service: str) -> None:
    """Send the spans of this process to a collector from now on. Does nothing where there is none.

    Args:
        endpoint: of OTLP over HTTP, such as `http://collector:4318`; `/v1/traces` is added.
        service: the name of the process in the traces, unless OTEL_SERVICE_NAME gives another one.
    """
    global _tracer
    if endpoint is not None and _tracer is None:
        from .tracing_sdk import SdkTracer  # here: without a collector nothing of it is loaded

        _tracer = SdkTracer(endpoint, service)


def stop() -> None:
    """Send what waits, for a few seconds at most, and then nothing more."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is not None:
        tracer.stop()


@contextmanager
def exporting(endpoint: str | None, service: str) -> Iterator[None]:
    """Send the spans of this process to a collector within the block, as `start` and `stop`."""
    start(endpoint, service)
    try:
        yield
    finally:
        stop()


def is_on() -> bool:
    """Return whether traces are made."""
    return _tracer is not None


def span(
    name: str,
    standard: Mapping[str, Value] = _NO_ATTRIBUTES,
    /,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    start: datetime | None = None,
    **own: Value,
) -> AbstractContextManager[Span]:
    """Record the block as a span below the current one. A block in a generator must not contain `yield`.

    Without `parent`, the kinds `server` and `consumer` begin a trace; the others are only recorded within one.

    Args:
        name: the same for all spans of one kind of work.
        standard: attributes of OpenTelemetry's conventions, by their names.
        kind: as in OpenTelemetry.
        parent: the W3C `traceparent` of the span above, where that is in another process.
        start: when it began, if that was before the block.
        own: attributes of ours, without their prefix `avatar.`.
    """
    if _tracer is None:
        return _AS_NOTHING
    return _tracer.span(name, kind, parent, start, {**standard, **prefixed(own)})


def infer_span(
    model: str, server: str, *, batch: int, size: int, shared_memory: bool
) -> AbstractContextManager[InferCall]:
    """Record the block as one call of Triton.

    Args:
        model: the name of the model.
        server: host:port of the server; empty inside Triton.
        batch: rows of the call.
        size: bytes of all inputs.
        shared_memory: whether they are in shared memory.
    """
    if _tracer is None:
        return _AS_NOTHING
    return _infer_span(_tracer, model, server, {"batch": batch, "bytes": size, "shared_memory": shared_memory})


@contextmanager
def _infer_span(tracer: Tracer, model: str, server: str, own: Mapping[str, Value]) -> Iterator[InferCall]:
    attributes = {"avatar.model": model, "avatar.request_id": triton_request_id(), **prefixed(own)}
    host, _, port = server.rpartition(":")
    if host and port.isdigit():
        attributes |= {"rpc.system": "grpc", "server.address": host.strip("[]"), "server.port": int(port)}
    with tracer.span(f"infer {model}", "client", None, None, attributes):
        yield _CALL


def stages() -> Callable[[str], Stage]:
    """Return a function that begins the span of a stage, by its name, below the span that is current now.

    Where there is none, its stages are not recorded, nor is what happens in their blocks.
    """
    return _begin_nothing if _tracer is None else _tracer.stages()


def _begin_nothing(name: str) -> Stage:
    return _NOTHING


def traceparent(*, sampled_only: bool = False) -> str | None:
    """Return the W3C `traceparent` of the current span, to be sent along; None where there is none.

    `sampled_only`: not of a span that is not recorded.
    """
    return None if _tracer is None else _tracer.traceparent(sampled_only=sampled_only)


def trace_id() -> str:
    """Return the id of the current trace, 32 hexadecimal digits; empty where there is none."""
    return "" if _tracer is None else _tracer.trace_id()


def triton_request_id() -> str:
    """Return the id of the current request for Triton, whose word for no id is an empty text."""
    current = request_id.get()
    return "" if current == "-" else current


def prefixed(own: Mapping[str, Value]) -> dict[str, Value]:
    """Return attributes of ours with their full names."""
    return {f"avatar.{name}": value for name, value in own.items()}
