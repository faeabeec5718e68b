"""The way to one server: gRPC channels, and how often and how soon a call is repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from ._errors import Cancelled, from_rpc_error

CHANNEL = (
    ("grpc.max_send_message_length", -1),  # no limit: frames of any size
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # a proxy that is set for downloads is not the way to an inference server
    # a server that comes back is found within two seconds instead of two minutes
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # a peer that vanished is noticed also where a call waits without end; Triton hangs up on pings under five
    # minutes apart
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
READY_SECONDS = 2.0  # a server that takes longer to say that it is ready is not
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
FIRST_PAUSE = 0.2  # seconds before a call is repeated; twice that before it is the next time, and so on

Stub = Any  # of the generated service, which has no types


@dataclass(frozen=True)
class Connection:
    """A channel, its stub, and what holds for every call over it."""

    address: str
    timeout: float
    retries: int
    channel: Any
    stub: Stub

    @classmethod
    def connect(cls, address: str, timeout: float, retries: int) -> Connection:
        """Nothing is connected before the first call."""
        channel = grpc.insecure_channel(address, CHANNEL)
        return cls(address, timeout, retries, channel, GRPCInferenceServiceStub(channel))

    def retry_state(self) -> RetryState:
        """For one call."""
        return RetryState(self)

    def stream(self, requests: Iterator[Any]) -> Any:  # noqa: ANN401 - gRPC has no types
        """A ModelStreamInfer call, to be iterated.

        Raises:
            Cancelled: the channel is closed.
        """
        return self._begin(self.stub.ModelStreamInfer, requests)

    def stream_one(self, request: Any) -> Any:  # noqa: ANN401
        """A ModelStreamInfer call with this one request. Raises as `stream`."""
        return self._begin(_answers(self.channel), request)

    def infer(self, request: Any, seconds: float) -> Any:  # noqa: ANN401
        """A ModelInfer call, a future. Raises as `stream`."""
        return self._begin(self.stub.ModelInfer.future, request, timeout=seconds)

    def _begin(self, call: Callable[..., Any], *args: Any, **more: Any) -> Any:  # noqa: ANN401
        try:
            return call(*args, **more)
        except ValueError:
            raise Cancelled("the client was closed") from None

    def async_channel(self) -> Any:  # noqa: ANN401
        """An asyncio channel of the running event loop."""
        return grpc.aio.insecure_channel(self.address, CHANNEL)

    def stream_one_async(self, channel: Any, request: Any) -> Any:  # noqa: ANN401
        """As `answers`, over a channel of the running event loop."""
        return _answers(channel)(request)


def _answers(channel: Any) -> Any:  # noqa: ANN401
    """ModelStreamInfer as a call with one request, which on the wire it is: gRPC sends that with the call itself.

    A stream of one would be sent by another thread or task, and when the call fails meanwhile, asyncio's reports that
    it could not send, in place of the reason.
    """
    return channel.unary_stream(STREAM, pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString)


class RetryState:
    """Counts the tries of one call, all of them within the connection's timeout.

    Only UNAVAILABLE is tried again: a call that the server has taken on, and may still be at, is not sent twice.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pauses = [FIRST_PAUSE * 2.0**n for n in range(connection.retries)]
        self._end = time.monotonic() + connection.timeout

    @property
    def seconds_left(self) -> float:
        """For the next try, more than none."""
        return max(0.001, self._end - time.monotonic())

    def pause(self, error: Any) -> float:  # noqa: ANN401 - a grpc.RpcError
        """Seconds until the next try, not the same for all clients of a server that comes back.

        Raises:
            AvatarClientError: there is none.
        """
        if error.code() == grpc.StatusCode.UNAVAILABLE and self._pauses:
            seconds = self._pauses.pop(0) * random.uniform(0.5, 1.0)  # noqa: S311
            if seconds < self.seconds_left:
                return seconds
        raise from_rpc_error(error, self._connection.address) from error
