"""One video, received while it is made."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from . import _errors, _messages
from ._connection import Connection, RetryState
from ._errors import AvatarClientError, Cancelled, ServerError
from ._events import Chunk, Event, Progress, Summary, parse_json
from ._files import atomic_write
from ._kserve import AsyncChannel, AsyncStreamCall, InferRequest, InferResponse, StreamResponse
from ._response_reader import ResponseReader
from ._rotation import Rotation, Server

if TYPE_CHECKING:
    from typing_extensions import Self

BOTH = "a RenderStream is iterated by `for` or by `async for`, not by both"


class RenderStream:
    """One video in progress: an iterator, or an async iterator, over its events.

    `Progress` and `Chunk` come in any order, and `Summary` at the end; the chunks, joined, are the video. The call
    starts with the first step. It is cancelled when a `with` or `async with` block ends, or the object is deleted.

    The files are read at the first step. Each step may raise AvatarClientError: `InvalidRequest` (a file, an option, an
    image without a face), `Unavailable` (also where no response comes within the client's timeout), `ServerError` or
    `Cancelled`; the first step also OSError.

    Attributes:
        summary: the last event, once it was received.
    """

    def __init__(self, rotation: Rotation, make_request: Callable[[], InferRequest]) -> None:
        """Made by `AvatarClient.render`. `make_request` reads the files."""
        self.summary: Summary | None = None
        self._rotation = rotation
        self._chosen: Server | None = None
        self._make_request = make_request
        self._request: InferRequest | None = None
        self._attempts: RetryState | None = None
        self._events: deque[Event] = deque()
        self._responded = self._ended = False
        self._lock = threading.Lock()  # of what follows: any thread may call `cancel`
        self._cancelled = False
        self._reader: ResponseReader | None = None  # of the iteration by `for`
        self._loop: asyncio.AbstractEventLoop | None = None  # of the iteration by `async for`
        self._channel: AsyncChannel | None = None
        self._call: AsyncStreamCall | None = None

    @property
    def _server(self) -> Server:
        """The server of this video, or of the next attempt at it."""
        if self._chosen is None:
            self._chosen = self._rotation.next()
        return self._chosen

    @property
    def _connection(self) -> Connection:
        return self._server.connection

    @property
    def _retry_state(self) -> RetryState:
        if self._attempts is None:
            self._attempts = self._connection.retry_state()
        return self._attempts

    def save(self, path: str | os.PathLike[str], progress: Callable[[Progress], None] | None = None) -> Summary:
        """Write the video to `path`; if it fails, `path` stays as it was. `progress` is called with each step.

        Raises:
            AvatarClientError: the video could not be rendered.
            OSError: `path` cannot be written (found out before anything is sent), or an input file cannot be read.
        """
        self._check_new()
        with self, atomic_write(path) as file:
            for event in self:
                if isinstance(event, Chunk):
                    file.write(event.data)
                elif isinstance(event, Progress) and progress:
                    progress(event)
        return self._complete_summary()

    def read(self) -> bytes:
        """Return the whole video. Raises as `save`."""
        self._check_new()
        with self:
            return b"".join(event.data for event in self if isinstance(event, Chunk))

    def cancel(self) -> None:
        """Cancel the work on the server, from any thread. The next step raises `Cancelled`, unless all was received."""
        with self._lock:
            self._cancelled = True
            reader, call, loop = self._reader, self._call, self._loop
        if reader:
            reader.close()
        if call and loop:
            if _running_loop() is loop:
                call.cancel()
            else:
                with suppress(RuntimeError):  # the loop has ended, and the call with it
                    loop.call_soon_threadsafe(call.cancel)

    close = cancel

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._loop:
            raise RuntimeError(BOTH)
        while not self._events:
            if self._ended:
                raise StopIteration
            self._handle(self._receive())
        return self._events.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._reader:
            raise RuntimeError(BOTH)
        while not self._events:
            if self._ended:
                await self._close_channel()
                raise StopAsyncIteration
            try:
                self._handle(await self._receive_async())
            except BaseException:
                await self._close_channel()
                raise
        return self._events.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        await self._close_channel()

    def __del__(self) -> None:
        if hasattr(self, "_call"):
            self.cancel()

    def _receive(self) -> StreamResponse | None:
        """Return the next response, or None at the end. Until the first response, the call may be repeated."""
        while True:
            try:
                if self._reader is None:
                    self._start(self._read_files())
                reader = self._reader
                return reader.take(self._seconds()) if reader else None
            except (TimeoutError, grpc.RpcError) as error:
                if self.summary:  # whatever the error is, nothing is missing
                    return None
                if not isinstance(error, grpc.RpcError):
                    self.cancel()
                    raise _errors.no_response(self._connection.address) from None
                time.sleep(self._pause(error))
                self._chosen = self._reader = None

    async def _receive_async(self) -> StreamResponse | None:
        """As `_receive`, in the running event loop."""
        while True:
            try:
                call = self._call or self._start_async(await asyncio.to_thread(self._read_files))
                return await self._read_async(call)
            except (asyncio.TimeoutError, grpc.RpcError, Cancelled) as error:
                if self.summary:
                    return None
                if isinstance(error, Cancelled):
                    raise
                if not isinstance(error, grpc.RpcError):
                    raise _errors.no_response(self._connection.address) from None
                await asyncio.sleep(self._pause(error))
                await self._close_channel()
                self._chosen = self._call = None

    async def _read_async(self, call: AsyncStreamCall) -> StreamResponse | None:
        """As `ResponseReader.take`. Without `wait_for`, which before Python 3.12 may swallow a cancellation."""
        step = asyncio.ensure_future(call.read())
        try:
            done, _ = await asyncio.wait((step,), timeout=self._seconds())
        finally:
            step.cancel()  # cancels the call, too; does nothing where the step is done
            (message,) = await asyncio.gather(step, return_exceptions=True)
        if not done:
            raise asyncio.TimeoutError
        if isinstance(message, asyncio.CancelledError):  # the call, by `cancel`
            raise self._cancelled_error()
        if isinstance(message, BaseException):
            raise message
        return None if message is grpc.aio.EOF else message

    def _check_new(self) -> None:
        if self._reader or self._call or self._ended:
            raise RuntimeError("the whole video was requested, but a part of it was already taken")

    def _read_files(self) -> InferRequest:
        if self._request is None:
            self._request = self._make_request()
            self._attempts = self._connection.retry_state()  # its time starts now
        return self._request

    def _start(self, request: InferRequest) -> None:
        with self._lock:
            if self._cancelled:
                raise self._cancelled_error()
            self._reader = ResponseReader(self._connection.stream_one(request))

    def _start_async(self, request: InferRequest) -> AsyncStreamCall:
        with self._lock:
            if self._cancelled:
                raise self._cancelled_error()
            if self._channel is None:
                self._loop = asyncio.get_running_loop()
                self._channel = self._connection.async_channel()
            self._call = self._connection.stream_one_async(self._channel, request)
            return self._call

    def _seconds(self) -> float:
        return self._connection.timeout if self._responded else self._retry_state.seconds_left

    def _pause(self, error: grpc.RpcError) -> float:
        """Return the seconds until the call is repeated; raise what `error` means where it may not be repeated."""
        if self._cancelled:
            raise self._cancelled_error() from None
        elsewhere = self._rotation.failed_by(self._server, error)
        if self._responded:
            raise _errors.from_rpc_error(error, self._connection.address) from error
        return self._retry_state.pause(error, self._connection, elsewhere)

    def _handle(self, message: StreamResponse | None) -> None:
        """Read the events of a response; None is the stream's end."""
        self._responded = True
        self._request = None  # it holds both files in memory
        try:
            if message is None:
                self._ended = True
                self._complete_summary()
            else:
                self._events.extend(_events(_messages.unwrap(message)))
        except AvatarClientError:
            self._ended = True
            self.cancel()
            raise
        for event in self._events:
            if isinstance(event, Summary):
                self.summary = event

    def _complete_summary(self) -> Summary:
        if self.summary is None:
            raise ServerError(f"{self._connection.address} ended the video before it was complete")
        return self.summary

    def _cancelled_error(self) -> Cancelled:
        return Cancelled("the render was cancelled")

    async def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel:
            await channel.close()


def _events(response: InferResponse) -> list[Event]:
    """Return the events of a response: usually one; none where it is only the final flag."""
    texts, arrays = _messages.texts(response), _messages.arrays(response)
    events: list[Event] = []
    if "stage" in texts:
        done, total = (int(arrays[name][0]) if name in arrays else -1 for name in ("done", "total"))
        events.append(Progress(texts["stage"], max(done, 0), None if total < 0 else total))
    if "video" in arrays:
        events.append(Chunk(arrays["video"].tobytes()))
    if "summary" in texts:
        events.append(parse_json(Summary, texts["summary"]))
    return events


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
