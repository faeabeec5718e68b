"""The connection to one server: gRPC channels, and how often and how soon a call is repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio

from . import _kserve
from ._errors import Cancelled, from_rpc_error
from ._kserve import AsyncChannel, AsyncStreamCall, Channel, InferCall, InferRequest, StreamCall, Stub

T = TypeVar("T")

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),  # no limit: frames of any size
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # a proxy that is set for downloads does not lead to an inference server
    # a server that restarts is found within two seconds instead of two minutes
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # detects a server that vanished also where a call waits without a limit; Triton closes connections whose pings come
    # less than five minutes apart
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
READY_SECONDS = 2.0  # a server that takes longer to say that it is ready is not ready
FIRST_PAUSE = 0.2  # seconds before a call is repeated; each further pause is twice as long


@dataclass(frozen=True)
class Connection:
    """A channel, its stub, and what applies to every call over it."""

    address: str
    timeout: float
    retries: int
    channel: Channel
    stub: Stub

    @classmethod
    def connect(cls, address: str, timeout: float, retries: int) -> Connection:
        """Make a channel, which connects at the first call."""
        channel: Channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        return cls(address, timeout, retries, channel, _kserve.make_stub(channel))

    def retry_state(self) -> RetryState:
        """Return the counter of one call's attempts."""
        return RetryState(self.timeout, self.retries)

    def stream(self, requests: Iterator[InferRequest]) -> StreamCall:
        """Start a ModelStreamInfer call.

        Raises:
            Cancelled: the channel is closed.
        """
        return _start(lambda: self.stub.ModelStreamInfer(requests))

    def stream_one(self, request: InferRequest) -> StreamCall:
        """Start a ModelStreamInfer call with this one request. Raises as `stream`."""
        return _start(lambda: _kserve.stream_one(self.channel, request))

    def infer(self, request: InferRequest, seconds: float) -> InferCall:
        """Start a ModelInfer call with a deadline. Raises as `stream`."""
        return _start(lambda: self.stub.ModelInfer.future(request, timeout=seconds))

    def async_channel(self) -> AsyncChannel:
        """Return a channel of the running event loop."""
        channel: AsyncChannel = grpc.aio.insecure_channel(self.address, CHANNEL_OPTIONS)
        return channel

    def stream_one_async(self, channel: AsyncChannel, request: InferRequest) -> AsyncStreamCall:
        """As `stream_one`, over a channel of the running event loop."""
        return _kserve.stream_one_async(channel, request)


def _start(call: Callable[[], T]) -> T:
    try:
        return call()
    except ValueError:
        raise Cancelled("the client was closed") from None


class RetryState:
    """Counts the attempts of one call, all of them within the connection's timeout.

    Only UNAVAILABLE is tried again: a call that the server has accepted, and may still work on, is not sent twice.
    """

    def __init__(self, timeout: float, retries: int) -> None:
        self._pauses = [FIRST_PAUSE * 2.0**n for n in range(retries)]
        self._end = time.monotonic() + timeout

    @property
    def seconds_left(self) -> float:
        """Seconds for the next attempt, more than 0."""
        return max(0.001, self._end - time.monotonic())

    def pause(self, error: grpc.RpcError, connection: Connection, elsewhere: bool = False) -> float:
        """Return the seconds until the next attempt, random so that the clients of a restarted server do not coincide.

        Args:
            error: what the last attempt failed with.
            connection: where it was made.
            elsewhere: whether the next one is made at another server: then at once.

        Raises:
            AvatarClientError: what `error` means, where no attempt is left.
        """
        if error.code() == grpc.StatusCode.UNAVAILABLE and self._pauses:
            seconds = self._pauses.pop(0) * random.uniform(0.5, 1.0) * (not elsewhere)  # noqa: S311
            if seconds < self.seconds_left:
                return seconds
        raise from_rpc_error(error, connection.address) from error
