"""One caller over WebRTC: its tracks and its data channel, joined to a conversation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)

from avatar.errors import InvalidField, Unavailable
from avatar.inference.live_stream import LiveFrame
from avatar.streams import cancel_and_wait

from ..live.conversation import Conversation
from ..live.failures import IdleCaller
from ..live.marks import mark_message, session_message
from ..live.messages import Clear, End, SegmentEnd, parse_message
from ..live_service import LiveService
from .gate import SAMPLE_RATE, SpeechGate
from .player import Player
from .tracks import FaceTrack, SoundTrack, samples_of

logger = logging.getLogger(__name__)

CONTROL = "control"  # the caller's data channel
MAX_MESSAGES = 100  # of the data channel that wait; more of them end the session
CLOSE_SECONDS = 5.0
CONNECT_SECONDS = 30.0  # for the first packets of the caller


class Peer:
    """A peer connection. Made by the caller's offer; `run` carries the session.

    Args:
        conversation: the session at the model, with echo and rest, at SAMPLE_RATE.
        ice_servers: URLs of STUN servers; none by default.
        live: counts the frames.
        idle_seconds: without speech or a message, after which the session is ended.
        gone: set when the session has to end; set here, too, when the caller is lost.
    """

    def __init__(
        self,
        conversation: Conversation,
        ice_servers: Sequence[str],
        live: LiveService,
        idle_seconds: float,
        gone: asyncio.Event,
    ) -> None:
        servers = [RTCIceServer(urls=url) for url in ice_servers]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))  # [] or it asks one of Google's
        self._conversation, self._live, self._idle_seconds = conversation, live, idle_seconds
        fps = Fraction(str(conversation.info["fps"]))
        self._player = Player(fps, float(conversation.info["latency"]), SAMPLE_RATE)
        self._face, self._sound = FaceTrack(self._player, fps), SoundTrack(self._player)
        self._microphone: MediaStreamTrack | None = None
        self._channel: RTCDataChannel | None = None
        self._messages: asyncio.Queue[str | bytes] = asyncio.Queue(MAX_MESSAGES)
        self._said: list[str] = [session_message(conversation.info)]  # before there was a data channel
        self._connected, self._gone = asyncio.Event(), gone
        self._active_at = 0.0

    async def answer(self, offer: str) -> str:
        """Return the answer to an offer, as SDP. Raises InvalidField."""
        connection = self._connection
        connection.on("track", self._on_track)
        connection.on("datachannel", self._on_channel)
        connection.on("connectionstatechange", self._on_state)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        except Exception as error:  # whatever aiortc finds wrong, in whichever way
            raise InvalidField("offer", f"not an SDP offer that can be used: {str(error)[:200]}") from error
        kinds = sorted(transceiver.kind for transceiver in connection.getTransceivers())
        if self._microphone is None or kinds != ["audio", "video"]:
            raise InvalidField("offer", "send one audio track, and ask for one video track (recvonly)")
        for transceiver in connection.getTransceivers():
            if transceiver.kind == "video":
                transceiver.direction = "sendonly"  # a video of the caller would only fill the memory
        connection.addTrack(self._face)
        connection.addTrack(self._sound)
        await connection.setLocalDescription(await connection.createAnswer())
        return str(connection.localDescription.sdp)

    async def run(self) -> None:
        """Carry the session to its end. Raises AvatarError."""
        self._active_at = asyncio.get_running_loop().time()
        work = (self._listen(), self._pass_on(), self._act(), self._player.run(), self._watch())
        tasks = [asyncio.create_task(each) for each in work]
        gone = asyncio.create_task(self._gone.wait())
        try:
            done, _ = await asyncio.wait((*tasks, gone), return_when=asyncio.FIRST_COMPLETED)
            for task in done - {gone}:
                task.result()
        finally:
            await cancel_and_wait(*tasks)
            await cancel_and_wait(gone)

    def say(self, text: str) -> None:
        """Send a message over the data channel, as soon as there is one."""
        if self._channel is None:
            self._said.append(text)
        elif self._channel.readyState == "open":
            self._channel.send(text)

    async def close(self) -> None:
        """Close the connection; a caller that does not answer any more does not hold it open."""
        await self._player.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connection.close()

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._microphone = track

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != CONTROL or self._channel is not None:
            return
        self._channel = channel
        self._note_activity()
        channel.on("message", self._on_message)
        for text in self._said:
            channel.send(text)

    def _on_message(self, data: str | bytes) -> None:
        if self._messages.full():
            self._gone.set()
        else:
            self._messages.put_nowait(data)

    def _on_state(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self._gone.set()

    async def _listen(self) -> None:
        """Pass the speech of the caller's track on, until the track ends."""
        assert self._microphone is not None  # noqa: S101 - for the type
        gate = SpeechGate()
        async for samples in samples_of(self._microphone):
            speech, has_ended = gate.feed(samples)
            if speech:
                self._note_activity()
                self._conversation.speak(speech)
            if has_ended:
                self._conversation.end_segment()
        self._conversation.end_segment()
        await asyncio.Event().wait()  # what is left is played until the caller ends the session

    async def _pass_on(self) -> None:
        async for event in self._conversation.events():
            if isinstance(event, LiveFrame):
                await self._player.put(event)
                self._live.count_frame("webrtc")
            else:
                self.say(mark_message(event))
        await self._player.wait_until_played()

    async def _act(self) -> None:
        """Act on the messages of the data channel."""
        while True:
            data = await self._messages.get()
            self._note_activity()
            message = parse_message(data) if isinstance(data, str) else None
            match message:
                case Clear():
                    self._conversation.clear(self._player.shown)
                    await self._player.clear()
                case SegmentEnd():
                    self._conversation.end_segment()
                case End():
                    self._conversation.end()
                case _:
                    raise InvalidField("type", "clear, segment_end or end expected")

    async def _watch(self) -> None:
        """Raise when the caller does not connect, or is silent for too long."""
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            raise Unavailable("no packet of the caller has arrived; use the WebSocket of /v1/live") from None
        self._note_activity()
        while (left := self._active_at + self._idle_seconds - clock()) > 0:  # noqa: ASYNC110 - it moves
            await asyncio.sleep(left)
        raise IdleCaller(f"the session was ended: no speech and no message for {self._idle_seconds:g} s")

    def _note_activity(self) -> None:
        self._active_at = asyncio.get_running_loop().time()
