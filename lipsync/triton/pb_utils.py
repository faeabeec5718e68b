"""Types for what the project uses of Triton's module `triton_python_backend_utils`, which has none.

The module exists only inside the server, so nothing here imports it: each `model.py` imports it and passes it on as
`PbUtils`. Names and signatures are those of Triton's python_backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NewType, Protocol, TypeAlias, overload

from ..arrays import Array

ErrorCode = NewType("ErrorCode", object)
MemoryType = NewType("MemoryType", object)
MetricKind = NewType("MetricKind", object)


class PbTensor(Protocol):
    """A named tensor in CPU memory."""

    def name(self) -> str:
        """Return the tensor's name."""

    def as_numpy(self) -> Array:
        """Return the tensor as an array: a view whose memory belongs to its request or response."""


class TritonError(Protocol):
    """The error of a response."""

    def code(self) -> ErrorCode:
        """Return the error's code, one of the attributes of `TritonErrorClass`."""

    def message(self) -> str:
        """Return the error's sentence."""


class TritonErrorClass(Protocol):
    """The class `TritonError`: its codes and its constructor."""

    CANCELLED: ErrorCode
    INTERNAL: ErrorCode
    INVALID_ARG: ErrorCode
    NOT_FOUND: ErrorCode
    UNAVAILABLE: ErrorCode

    def __call__(self, message: str, code: ErrorCode, /) -> TritonError:
        """Make an error."""


class InferenceResponse(Protocol):
    """A response: outputs or an error."""

    def has_error(self) -> bool:
        """Return whether the response is an error."""

    def error(self) -> TritonError:
        """Return the error of a response that has one."""


class ResponseSender(Protocol):
    """Where the responses to one request go, if `execute` does not return them."""

    def send(self, response: InferenceResponse | None = None, /, flags: int = 0) -> None:
        """Send a response, a flag, or both in one message."""

    def is_cancelled(self) -> bool:
        """Return whether the client has cancelled the request. Crashes the server after the final flag was sent."""


class InferenceTrace(Protocol):
    """Triton's own trace of a request."""

    def get_context(self) -> str | None:
        """Return a JSON object with the `traceparent` of Triton's span; None where Triton makes none."""


class InferenceRequest(Protocol):
    """A request: one that Triton passes to `execute`, or one that a model sends to another (BLS)."""

    def inputs(self) -> Sequence[PbTensor]:
        """Return the inputs that were sent."""

    def requested_output_names(self) -> Sequence[str]:
        """Return the names of the outputs that the caller asks for."""

    def request_id(self) -> str:
        """Return the request's id. Raises UnicodeDecodeError for one that is not UTF-8."""

    def parameters(self) -> str:
        """Return a JSON object: the request's parameters, and the metadata that the server is to forward."""

    def trace(self) -> InferenceTrace:
        """Return Triton's own trace of the request."""

    def correlation_id(self) -> int | str:
        """Return the id of the request's sequence, 0 for none."""

    def flags(self) -> int:
        """Return the flags of a sequence's start and end."""

    def get_response_sender(self) -> ResponseSender:
        """Return the sender of the responses, for a model that is decoupled or returns none."""

    @overload
    def exec(self) -> InferenceResponse: ...
    @overload
    def exec(self, *, decoupled: Literal[True]) -> Iterator[InferenceResponse]: ...
    def exec(self, *, decoupled: bool = False) -> InferenceResponse | Iterator[InferenceResponse]:
        """Send the request to its model and wait for the response; yield the responses of a decoupled model."""


class PreferredMemory(Protocol):
    """Where the outputs of a BLS request are to be."""


class TritonMetric(Protocol):
    """One series of a metric."""

    def increment(self, number: float, /) -> None:
        """Add to a counter or a gauge."""

    def set(self, value: float, /) -> None:
        """Set a gauge."""

    def observe(self, value: float, /) -> None:
        """Add a value to a histogram."""


class MetricFamily(Protocol):
    """A metric on the server's metrics port."""

    def Metric(  # noqa: N802
        self, *, labels: Mapping[str, str], buckets: Sequence[float] = ...
    ) -> TritonMetric:
        """Make a series; `buckets` of a histogram only."""


class MetricFamilyClass(Protocol):
    """The class `MetricFamily`: its kinds and its constructor."""

    COUNTER: MetricKind
    GAUGE: MetricKind
    HISTOGRAM: MetricKind

    def __call__(self, *, name: str, description: str, kind: MetricKind) -> MetricFamily:
        """Make a metric."""


class Logger(Protocol):
    """The server's log."""

    def log_info(self, message: str, /) -> None:
        """Log a line at level info."""

    def log_warn(self, message: str, /) -> None:
        """Log a line at level warning."""

    def log_error(self, message: str, /) -> None:
        """Log a line at level error."""


# The module's own names below hide these types inside the class.
_Logger: TypeAlias = Logger
_TritonError: TypeAlias = TritonError
_Request: TypeAlias = InferenceRequest
_Response: TypeAlias = InferenceResponse
_PreferredMemory: TypeAlias = PreferredMemory


class PbUtils(Protocol):
    """The module `triton_python_backend_utils`."""

    TRITONSERVER_REQUEST_FLAG_SEQUENCE_START: int
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_END: int
    TRITONSERVER_RESPONSE_COMPLETE_FINAL: int
    TRITONSERVER_MEMORY_CPU: MemoryType

    @property
    def Logger(self) -> _Logger:  # noqa: N802
        """The server's log."""

    @property
    def TritonError(self) -> TritonErrorClass:  # noqa: N802
        """The class of errors."""

    @property
    def MetricFamily(self) -> MetricFamilyClass:  # noqa: N802
        """The class of metrics."""

    @property
    def TritonModelException(self) -> type[Exception]:  # noqa: N802
        """The exception of Triton's own calls."""

    def Tensor(self, name: str, array: Array, /) -> PbTensor:  # noqa: N802
        """Make a tensor."""

    def InferenceRequest(  # noqa: N802
        self,
        *,
        model_name: str,
        requested_output_names: Sequence[str],
        inputs: Sequence[PbTensor],
        preferred_memory: _PreferredMemory,
        model_version: int = -1,
        request_id: str = "",
        correlation_id: int | str = 0,
        flags: int = 0,
    ) -> _Request:
        """Make a request to another model."""

    def InferenceResponse(  # noqa: N802
        self, output_tensors: Sequence[PbTensor] = (), error: _TritonError | None = None
    ) -> _Response:
        """Make a response."""

    def PreferredMemory(self, memory: MemoryType, device: int, /) -> _PreferredMemory:  # noqa: N802
        """Say where a BLS request's outputs are to be."""

    def get_input_tensor_by_name(self, request: _Request, name: str, /) -> PbTensor | None:
        """Return a request's input, or None where it was not sent."""

    def get_output_tensor_by_name(self, response: _Response, name: str, /) -> PbTensor:
        """Return a response's output."""
