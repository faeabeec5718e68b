"""One caller's WebSocket: receive its messages, send it frames and marks, and end it with a sentence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from avatar.errors import InvalidField, Unavailable
from avatar.inference.live_stream import LiveFrame
from avatar.streams import cancel_and_wait
from jobs.keys import KeyLimits

from ..authentication import Caller, authenticate
from ..cancellation import run_until_disconnect
from ..clients import client_of
from ..connection import ABORT
from ..middleware import ERROR
from ..service import Service
from ..transfer import Pace
from .conversation import Conversation
from .failures import IdleCaller, close_code, close_reason, describe, kind_of
from .marks import SUMMARY, mark_message, session_message
from .messages import Clear, End, SegmentEnd, Start, option_text, pack_frame, parse_message
from .opening import Wanted, check_face_size, open_conversation
from .outbox import Outbox

logger = logging.getLogger(__name__)

FAREWELL_SECONDS = 2.0  # for the error, and the close, to be taken in
NORMAL = 1000


class LiveSocket:
    """A WebSocket that was accepted.

    Args:
        caller: that a header has named; None where the first message has to name it.
    """

    def __init__(self, websocket: WebSocket, service: Service, caller: Caller | None) -> None:
        self._websocket, self._service, self._caller = websocket, service, caller
        self._outbox = Outbox(service.settings.upload_timeout)
        self._summary: str | None = None  # sent when the session holds no place any more: its caller may start the next

    async def run(self) -> None:
        """Serve the caller until the end of its session, and tell it why it ends."""
        with self._service.live.connected():
            await self._run()

    async def _run(self) -> None:
        try:
            await run_until_disconnect(self._serve(), self._service.live.closing)
            await self._say_goodbye(self._summary, NORMAL, "", self._service.settings.upload_timeout)
        except WebSocketDisconnect:
            logger.info("the caller of a live session has disconnected")
        except Exception as error:
            failure = describe(error, self._service)
            self._websocket.scope["state"][ERROR] = kind_of(error)
            text = failure.model_dump_json(exclude_none=True)
            await self._say_goodbye(text, close_code(error), close_reason(failure))

    async def _serve(self) -> None:
        service = self._service
        client = client_of(self._websocket, service.settings.trusted_proxies)
        with service.live.hold(client, "websocket", draining=service.jobs.draining):
            start = await self._first_message()
            caller = self._caller or authenticate(service.keys, KeyLimits.of(service.settings), start.key or "")
            service.live.count_start(caller)
            with service.forms.hold(caller.tenant, caller.limits):
                conversation = await self._open(start, caller)
                try:
                    await self._converse(conversation, start)
                finally:
                    await conversation.close()

    async def _open(self, start: Start, caller: Caller) -> Conversation:
        """Receive the face, if one is sent, and start the session; then the face is not kept in memory."""
        face = None if start.face_bytes is None else await self._face(start.face_bytes)
        options = {name: option_text(value) for name, value in start.options.items()}
        wanted = Wanted(start.sample_rate, start.rest, options, start.avatar, face)
        return await open_conversation(self._service, caller, wanted)

    async def _first_message(self) -> Start:
        seconds = self._service.settings.header_timeout
        try:
            async with asyncio.timeout(seconds):
                data = await self._receive()
        except TimeoutError:
            raise InvalidField("type", f"the first message, `start`, did not arrive within {seconds:g} s") from None
        message = parse_message(data) if isinstance(data, str) else None
        if not isinstance(message, Start):
            raise InvalidField("type", "the first message has to be `start`")
        return message

    async def _face(self, size: int) -> bytes:
        """Receive the file, in as many messages as the caller likes, as fast as an upload has to be."""
        check_face_size(self._service, size, "face_bytes")
        settings, clock = self._service.settings, asyncio.get_running_loop().time
        pace, face = Pace(settings.transfer_seconds, settings.transfer_min_rate, clock()), bytearray()
        while len(face) < size:
            try:
                async with asyncio.timeout(min(settings.upload_timeout, pace.left(clock()))):
                    data = await self._receive()
            except TimeoutError:
                raise IdleCaller(f"the face did not arrive: {len(face)} of {size} bytes; {pace.rule}") from None
            if isinstance(data, str):
                raise InvalidField("face_bytes", f"{size} bytes of the face expected, got {len(face)} and then a text")
            face += data
            pace.advance(len(data))
        if len(face) > size:
            raise InvalidField("face_bytes", f"{size} bytes of the face expected, got {len(face)}")
        return bytes(face)

    async def _converse(self, conversation: Conversation, start: Start) -> None:
        """Carry a session to its summary: the caller's messages, the model's events, and what waits to be sent."""
        await self._outbox.put(session_message(conversation.info))
        tasks = [
            asyncio.create_task(self._send()),  # ends with the session; the others end before it only by an error
            asyncio.create_task(self._pass_on(conversation, echo=start.echo)),
            asyncio.create_task(self._listen(conversation)),
        ]
        try:
            await _first_of(tasks)
        finally:
            await cancel_and_wait(*tasks)

    async def _listen(self, conversation: Conversation) -> None:
        """Act on the caller's messages until it ends the session, then wait until it disconnects."""
        seconds = self._service.settings.live_idle_seconds
        while True:
            try:
                async with asyncio.timeout(seconds):
                    data = await self._receive()
            except TimeoutError:
                raise IdleCaller(f"the session was ended: no message for {seconds:g} s") from None
            message = parse_message(data) if isinstance(data, str) else None
            match message:
                case None:
                    conversation.speak(data if isinstance(data, bytes) else b"")
                case Clear():
                    conversation.clear(message.shown)
                    await self._outbox.drop_frames()
                case SegmentEnd():
                    conversation.end_segment()
                case End():
                    conversation.end()
                    await self._wait_for_the_end(seconds)
                case _:
                    raise InvalidField("type", "the session has started already; open another connection")

    async def _wait_for_the_end(self, seconds: float) -> None:
        """Ignore the caller, who may only disconnect now. Raises Unavailable if the model does not end the session."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self._receive()
        except TimeoutError:
            raise Unavailable(f"the model has not ended the session within {seconds:g} s") from None

    async def _pass_on(self, conversation: Conversation, *, echo: bool) -> None:
        async for event in conversation.events():
            if isinstance(event, LiveFrame):
                await self._outbox.put(pack_frame(event, echo=echo), is_frame=True)
                self._service.live.count_frame("websocket")
            elif event.kind == SUMMARY:
                self._summary = mark_message(event)
            else:
                await self._outbox.put(mark_message(event))
        await self._outbox.finish()
        await asyncio.Event().wait()  # the sender says when all is sent

    async def _send(self) -> None:
        while (message := await self._outbox.take()) is not None:
            if isinstance(message, str):
                await self._websocket.send_text(message)
            else:
                await self._websocket.send_bytes(message)

    async def _receive(self) -> bytes | str:
        """Return the next message. Raises WebSocketDisconnect."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data = message.get("bytes")
        return data if data is not None else str(message["text"])

    async def _say_goodbye(self, text: str | None, code: int, reason: str, seconds: float = FAREWELL_SECONDS) -> None:
        """Send the last message and the close; a caller that takes in nothing is cut off."""
        abort: Callable[[str], None] | None = self._websocket.scope.get("state", {}).get(ABORT)
        try:
            async with asyncio.timeout(seconds):
                with suppress(WebSocketDisconnect, RuntimeError):
                    if text is not None:
                        await self._websocket.send_text(text)
                    await self._websocket.close(code, reason)
        except TimeoutError:
            if abort:
                abort("slow_download")


async def _first_of(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait until one of the tasks ends, and raise what it failed with."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()
            return
