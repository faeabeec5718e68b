"""A whole video, as it is made."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from . import _errors, _messages
from ._connection import Connection
from ._errors import AvatarClientError, Cancelled, ServerError
from ._events import Chunk, Event, Progress, Summary, parse_json
from ._files import atomic_write
from ._messages import Message
from ._response_reader import ResponseReader

if TYPE_CHECKING:
    from typing_extensions import Self

BOTH = "a rendering is iterated by `for` or by `async for`, not by both"


class RenderStream:
    """One video under way: an iterator, and an async iterator, of its events, once.

    `Progress` and `Chunk` come in any order, and `Summary` at the end; the chunks in a row are the video. The call
    begins with the first step. Leaving a `with` or `async with` block cancels it, as does letting go of it.

    The files are read at the first step. Each step may raise AvatarClientError: `InvalidRequest` (a file, an option, an
    image without a face), `Unavailable` (also where no response comes within the client's timeout), `ServerError` or
    `Cancelled`; the first step also OSError.

    Attributes:
        summary: the last event, once it has come.
    """

    def __init__(self, connection: Connection, request: Callable[[], Message]) -> None:
        """Made by `AvatarClient.render`. `request` reads the files."""
        self.summary: Summary | None = None
        self._connection = connection
        self._make_request = request
        self._request: Message = None
        self._tries = connection.retry_state()
        self._events: deque[Event] = deque()
        self._heard = self._over = False
        self._lock = threading.Lock()  # of what follows: `cancel` may come from anywhere
        self._cancelled = False
        self._inbox: ResponseReader | None = None  # iterated by `for`
        self._loop: asyncio.AbstractEventLoop | None = None  # iterated by `async for`, there
        self._channel: Any = None
        self._call: Any = None

    def save(self, path: str | os.PathLike[str], progress: Callable[[Progress], None] | None = None) -> Summary:
        """Write the video to `path`, which is whole or not touched. `progress` takes each step.

        Raises:
            AvatarClientError: there is no video.
            OSError: it cannot be written (found out before anything is sent), or a file cannot be read.
        """
        self._check_new()
        with self, atomic_write(path) as file:
            for event in self:
                if isinstance(event, Chunk):
                    file.write(event.data)
                elif isinstance(event, Progress) and progress:
                    progress(event)
        return self._whole()

    def read(self) -> bytes:
        """The whole video. Raises as `save`."""
        self._check_new()
        with self:
            return b"".join(event.data for event in self if isinstance(event, Chunk))

    def cancel(self) -> None:
        """Have the server stop, from any thread. The next step raises `Cancelled`, unless all had come."""
        with self._lock:
            self._cancelled = True
            inbox, call, loop = self._inbox, self._call, self._loop
        if inbox:
            inbox.close()
        if call and loop:
            if _running() is loop:
                call.cancel()
            else:
                with suppress(RuntimeError):  # that loop has ended, and the call with it
                    loop.call_soon_threadsafe(call.cancel)

    close = cancel

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._loop:
            raise RuntimeError(BOTH)
        while not self._events:
            if self._over:
                raise StopIteration
            self._understand(self._receive())
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
        if self._inbox:
            raise RuntimeError(BOTH)
        while not self._events:
            if self._over:
                await self._leave()
                raise StopAsyncIteration
            try:
                self._understand(await self._receive_here())
            except BaseException:
                await self._leave()
                raise
        return self._events.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        await self._leave()

    def __del__(self) -> None:
        if hasattr(self, "_call"):
            self.cancel()

    def _receive(self) -> Message | None:
        """The next answer, or None at the end; as long as none has come the call may be made again."""
        while True:
            try:
                if self._inbox is None:
                    self._begin(self._read_files())
                inbox = self._inbox
                return inbox.take(self._patience()) if inbox else None
            except (TimeoutError, grpc.RpcError) as error:
                if self.summary:  # whatever it is, nothing is missing
                    return None
                if not isinstance(error, grpc.RpcError):
                    self.cancel()
                    raise _errors.no_response(self._connection.address) from None
                time.sleep(self._pause(error))
                self._inbox = None

    async def _receive_here(self) -> Message | None:
        """As `_receive`, in the running event loop."""
        while True:
            try:
                if self._call is None:
                    self._begin_here(await asyncio.to_thread(self._read_files))
                return await self._read_here(self._call)
            except (asyncio.TimeoutError, grpc.RpcError, Cancelled) as error:
                if self.summary:
                    return None
                if isinstance(error, Cancelled):
                    raise
                if not isinstance(error, grpc.RpcError):
                    raise _errors.no_response(self._connection.address) from None
                await asyncio.sleep(self._pause(error))
                self._call = None

    async def _read_here(self, call: Any) -> Message | None:  # noqa: ANN401
        """As `Inbox.take`. Not by `wait_for`, which before Python 3.12 may swallow that the task is cancelled."""
        step = asyncio.ensure_future(call.read())
        try:
            came, _ = await asyncio.wait((step,), timeout=self._patience())
        finally:
            step.cancel()  # and with it the call; nothing, where it is done
            ended = await asyncio.gather(step, return_exceptions=True)
        message: Any = ended[0]
        if not came:
            raise asyncio.TimeoutError
        if isinstance(message, asyncio.CancelledError):  # the call, by `cancel`
            raise self._given_up()
        if isinstance(message, BaseException):
            raise message
        return None if message is grpc.aio.EOF else message

    def _check_new(self) -> None:
        if self._inbox or self._call or self._over:
            raise RuntimeError("the whole video is asked for, but some of it was taken before")

    def _read_files(self) -> Message:
        if self._request is None:
            self._request = self._make_request()
            self._tries = self._connection.retry_state()  # from now on
        return self._request

    def _begin(self, request: Message) -> None:
        with self._lock:
            if self._cancelled:
                raise self._given_up()
            self._inbox = ResponseReader(self._connection.stream_one(request))

    def _begin_here(self, request: Message) -> None:
        with self._lock:
            if self._cancelled:
                raise self._given_up()
            if self._channel is None:
                self._loop = asyncio.get_running_loop()
                self._channel = self._connection.async_channel()
            self._call = self._connection.stream_one_async(self._channel, request)

    def _patience(self) -> float:
        return self._connection.timeout if self._heard else self._tries.seconds_left

    def _pause(self, error: Any) -> float:  # noqa: ANN401 - a grpc.RpcError
        """Seconds until the call is made again; raises what `error` means where it may not be."""
        if self._cancelled:
            raise self._given_up() from None
        if self._heard:
            raise _errors.from_rpc_error(error, self._connection.address) from error
        return self._tries.pause(error)

    def _understand(self, message: Message | None) -> None:
        """Take the events out of an answer; None is the stream's end."""
        self._heard = True
        self._request = None  # it holds both files
        try:
            if message is None:
                self._over = True
                self._whole()
            else:
                self._events.extend(_events(_messages.answer(message)))
        except AvatarClientError:
            self._over = True
            self.cancel()
            raise
        for event in self._events:
            if isinstance(event, Summary):
                self.summary = event

    def _whole(self) -> Summary:
        if self.summary is None:
            raise ServerError(f"{self._connection.address} ended the video before it was whole")
        return self.summary

    def _given_up(self) -> Cancelled:
        return Cancelled("the rendering was cancelled")

    async def _leave(self) -> None:
        channel, self._channel = self._channel, None
        if channel:
            await channel.close()


def _events(response: Message) -> list[Event]:
    """What one answer tells: one of the three, or nothing where it is only the last one's flag."""
    texts, arrays = _messages.texts(response), _messages.arrays(response)
    found: list[Event] = []
    if "stage" in texts:
        done, total = (int(arrays[name][0]) if name in arrays else -1 for name in ("done", "total"))
        found.append(Progress(texts["stage"], max(done, 0), None if total < 0 else total))
    if "video" in arrays:
        found.append(Chunk(arrays["video"].tobytes()))
    if "summary" in texts:
        found.append(parse_json(Summary, texts["summary"]))
    return found


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
