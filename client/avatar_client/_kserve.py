"""Types for what the client uses of gRPC and of KServe's messages, which come without types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

Metadata = Sequence[tuple[str, str]]

_STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"


class Output(Protocol):
    """One output of a response, without its bytes."""

    name: str
    datatype: str
    shape: Sequence[int]


class InferRequest(Protocol):
    """A ModelInferRequest."""

    model_name: str


class InferResponse(Protocol):
    """A ModelInferResponse."""

    model_name: str
    outputs: Sequence[Output]
    raw_output_contents: Sequence[bytes]


class StreamResponse(Protocol):
    """A ModelStreamInferResponse: a response, or an error in its place."""

    error_message: str
    infer_response: InferResponse


class InferCall(Protocol):
    """A ModelInfer call in flight."""

    def result(self) -> InferResponse:
        """Wait for the response. Raises `grpc.RpcError`."""

    def cancel(self) -> bool:
        """Cancel the call; nothing happens where it has ended."""


class StreamCall(Protocol):
    """A ModelStreamInfer call in flight."""

    def __iter__(self) -> Iterator[StreamResponse]:
        """Return its responses. Raises `grpc.RpcError`."""

    def cancel(self) -> bool:
        """Cancel the call; nothing happens where it has ended."""


class AsyncStreamCall(Protocol):
    """A ModelStreamInfer call in flight, over asyncio."""

    async def read(self) -> StreamResponse:
        """Return the next response, or `grpc.aio.EOF` at the end. Raises `grpc.RpcError`."""

    def cancel(self) -> bool:
        """Cancel the call; nothing happens where it has ended."""


class Channel(Protocol):
    """A gRPC channel."""

    def unary_stream(
        self, method: str, request_serializer: Callable[..., bytes], response_deserializer: Callable[..., object]
    ) -> Callable[[InferRequest], StreamCall]:
        """Return a function that makes a call with one request and a stream of responses."""

    def close(self) -> None:
        """Close the channel."""


class AsyncChannel(Protocol):
    """A gRPC channel of an event loop."""

    def unary_stream(
        self, method: str, request_serializer: Callable[..., bytes], response_deserializer: Callable[..., object]
    ) -> Callable[[InferRequest], AsyncStreamCall]:
        """Return a function that makes a call with one request and a stream of responses."""

    async def close(self) -> None:
        """Close the channel."""


class Parameter(Protocol):
    """A parameter of a model's configuration."""

    string_value: str


class ModelConfig(Protocol):
    """A model's configuration."""

    parameters: Mapping[str, Parameter]


class ReadyResponse(Protocol):
    """Whether the server or a model is ready."""

    ready: bool


class ConfigResponse(Protocol):
    """A ModelConfigResponse."""

    config: ModelConfig


class RegionsResponse(Protocol):
    """A SystemSharedMemoryStatusResponse."""

    regions: Mapping[str, object]


class InferMethod(Protocol):
    """ModelInfer."""

    def future(self, request: InferRequest, /, *, timeout: float) -> InferCall:
        """Start a call."""


class Stub(Protocol):
    """A GRPCInferenceServiceStub: the calls of the server that the client makes. Each raises `grpc.RpcError`."""

    ModelInfer: InferMethod

    def ModelStreamInfer(self, requests: Iterator[InferRequest], /) -> StreamCall:  # noqa: N802
        """Start a stream."""

    def ServerReady(self, request: object, /, *, timeout: float) -> ReadyResponse:  # noqa: N802
        """Return whether the server is ready."""

    def ModelReady(self, request: object, /, *, timeout: float) -> ReadyResponse:  # noqa: N802
        """Return whether a model is ready."""

    def ModelConfig(self, request: object, /, *, timeout: float) -> ConfigResponse:  # noqa: N802
        """Return a model's configuration."""

    def SystemSharedMemoryRegister(  # noqa: N802
        self, request: object, /, *, timeout: float, metadata: Metadata
    ) -> object:
        """Map a file of /dev/shm."""

    def SystemSharedMemoryUnregister(  # noqa: N802
        self, request: object, /, *, timeout: float, metadata: Metadata
    ) -> object:
        """Release a region."""

    def SystemSharedMemoryStatus(  # noqa: N802
        self, request: object, /, *, timeout: float, metadata: Metadata
    ) -> RegionsResponse:
        """Return all regions."""


def make_stub(channel: Channel) -> Stub:
    """Return the calls over a channel."""
    stub: Stub = GRPCInferenceServiceStub(channel)
    return stub


def stream_one(channel: Channel, request: InferRequest) -> StreamCall:
    """Start a ModelStreamInfer call with one request, which gRPC sends with the call itself.

    The requests of a stream would be sent by another thread or task; if the call fails meanwhile, asyncio reports that
    it could not send, in place of the reason.
    """
    return channel.unary_stream(*_METHOD)(request)


def stream_one_async(channel: AsyncChannel, request: InferRequest) -> AsyncStreamCall:
    """As `stream_one`, over a channel of the running event loop."""
    return channel.unary_stream(*_METHOD)(request)


_METHOD = (_STREAM_METHOD, pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString)
