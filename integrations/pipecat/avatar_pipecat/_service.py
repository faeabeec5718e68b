"""The video service of Pipecat over a conversation with the avatar."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.ai_service import AIService
from pipecat.services.settings import ServiceSettings
from pipecat.utils.errors import ErrorCategory, classify_http_status_code

from avatar_client import AvatarClient, AvatarClientError, File, LiveOptions, Unavailable
from avatar_client.conversation import (
    Conversation,
    ConversationFrame,
    ServerBack,
    ServerLost,
    SpeechEnd,
    is_resting,
)

from ._order import SpeechOrder
from ._pace import Pace
from ._speech import SpeechConverter

SECONDS = 60.0  # for one response of the server, such as the start of a session with a video avatar
SETUP_SECONDS = 10.0  # that the pipeline waits for the first session; then it starts without a face
FIRST_RETRY, LAST_RETRY = 0.5, 3.0  # seconds until the first session is tried again, doubled each time
CONNECT_SECONDS = 2.0  # that one try waits for the server


@dataclass
class AvatarVideoSettings(ServiceSettings):
    """Settings of the service. There are none that can change while it runs."""


class AvatarVideoService(AIService):
    """Gives the bot a face: put it between the text-to-speech service and the output of the transport.

    TTSAudioRawFrames go in; OutputImageRawFrames (RGB) and TTSAudioRawFrames that belong together come out in real
    time, and images of the face at rest in between. An interruption drops all speech that has not come out. All other
    frames pass; those that belong to a place in the speech, such as its words and TTSStoppedFrame, pass with it.

    Without the server, the speech passes, with the last image or with none; an ErrorFrame says so, and new sessions are
    tried.
    """

    Settings = AvatarVideoSettings

    def __init__(
        self,
        *,
        server: str | Sequence[str] | AvatarClient,
        face: File | None = None,
        avatar: str | None = None,
        sample_rate: int | None = None,
        sync_with_audio: bool = False,
        options: LiveOptions | None = None,
        settings: AvatarVideoSettings | None = None,
        **kwargs: Any,  # noqa: ANN401 - of AIService
    ) -> None:
        """Make the service; the pipeline starts its session.

        Args:
            server: host:port of Triton's gRPC, or several; or a client, which stays open.
            face: an image or a short video, its bytes or its path; with `avatar` it may be None.
            avatar: the id of a prepared avatar.
            sample_rate: Hz of the speech that comes out, 8000 to 48000; by default `audio_out_sample_rate` of the
                pipeline. The speech that goes in may have any rate.
            sync_with_audio: send images through the audio queue of the transport, so that they wait for the sound
                before them. Only for transports with `video_out_is_live=False`.
            options: those of `AvatarClient.live`, such as `{"background": "White"}`.
            settings: none that can change.
            kwargs: arguments of AIService.

        Raises:
            TypeError, ValueError: neither a face nor an avatar, or an invalid address or sample rate.
        """
        super().__init__(settings=settings or AvatarVideoSettings(model=None), **kwargs)
        if face is None and avatar is None:
            raise TypeError("AvatarVideoService: a face or the id of a prepared avatar expected")
        self._own_client = None if isinstance(server, AvatarClient) else AvatarClient(server, timeout=SECONDS)
        self._client = server if isinstance(server, AvatarClient) else self._own_client
        self._face, self._avatar, self._options = face, avatar, options or LiveOptions()
        self._sample_rate, self._sync_with_audio = sample_rate, sync_with_audio
        self._conversation: Conversation | None = None
        self._order, self._pace = SpeechOrder(), Pace()
        self._speech = SpeechConverter(0)
        self._turn = 0  # number of interruptions
        self._is_showing = False  # whether speech was taken from the conversation that was not pushed yet
        self._lock = asyncio.Lock()  # no frame of dropped speech is pushed after its interruption
        self._has_tried, self._has_started, self._may_show = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._is_drained = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def can_generate_metrics(self) -> bool:
        """Return True: the time to the first frame of a speech is measured."""
        return True

    @property
    def conversation(self) -> Conversation | None:
        """The session with the server; None before the first one has started."""
        return self._conversation

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]
        """Start the session, and wait for it for a limited time."""
        await super().setup(setup)
        self._sample_rate = self._sample_rate or setup.audio_out_sample_rate
        self._speech = SpeechConverter(self._sample_rate)
        self._task = self.create_task(self._run(self._sample_rate))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has_tried.wait(), SETUP_SECONDS)

    async def stop(self, frame: EndFrame) -> None:
        """Wait until all speech has come out, and end the session."""
        await super().stop(frame)
        while self._conversation and self._task and not self._task.done() and not self._is_quiet(self._conversation):
            self._is_drained.clear()
            await self._is_drained.wait()
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """End the session at once."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """End the session, and close the connection."""
        await super().cleanup()  # type: ignore[no-untyped-call]
        await self._close()
        if self._own_client:
            await asyncio.to_thread(self._own_client.close)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take speech, the end of speech and interruptions; pass everything else on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            await self._interrupt(frame, direction)
        elif direction is FrameDirection.DOWNSTREAM and isinstance(frame, TTSAudioRawFrame):
            await self._say(frame)
        elif direction is FrameDirection.DOWNSTREAM and SpeechOrder.applies_to(frame):
            await self._pass_in_order(frame)
        else:
            await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._has_started.set()
        elif isinstance(frame, OutputTransportReadyFrame):
            self._may_show.set()

    async def _say(self, frame: TTSAudioRawFrame) -> None:
        self._may_show.set()
        if self._conversation is None:
            await self.push_frame(frame)
            return
        if not self._conversation.is_speaking:
            await self.start_ttfb_metrics()
        self._order.speak(frame, self._conversation.position)
        await self._conversation.say(await self._speech.convert(frame))

    async def _pass_in_order(self, frame: Frame) -> None:
        conversation = self._conversation
        if conversation and isinstance(frame, TTSStoppedFrame):
            await conversation.say(await self._speech.flush())
            conversation.end_segment()
            self._order.hold(frame, conversation.position)
        elif conversation and not self._is_quiet(conversation):
            self._order.hold(frame, conversation.position)
        else:
            await self.push_frame(frame)

    def _is_quiet(self, conversation: Conversation) -> bool:
        return self._order.is_empty and not (self._is_showing or conversation.is_speaking)

    async def _interrupt(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        async with self._lock:
            self._turn += 1
            self._speech.reset()
            if self._conversation:
                self._conversation.interrupt()
            kept = self._order.interrupted()
            await self.push_frame(frame, direction)
            for each in kept:
                await self.push_frame(each)
        self._is_drained.set()

    async def _run(self, sample_rate: int) -> None:
        """Hold the conversation, from the first session to the end of the pipeline."""
        try:
            conversation = await self._connect(sample_rate)
            if conversation:
                self._conversation = conversation
                self._has_tried.set()
                await self._has_started.wait()
                await self._may_show.wait()
                await self._show(conversation)
        finally:
            self._is_drained.set()

    async def _connect(self, sample_rate: int) -> Conversation | None:
        """Try to start a session until there is one; None where it is in vain."""
        assert self._client is not None  # noqa: S101 - made by __init__
        pause = FIRST_RETRY
        while True:
            try:
                return await Conversation.start(
                    self._client, self._face, sample_rate=sample_rate, avatar=self._avatar, **self._options
                )
            except Exception as error:  # whatever it is, the pipeline has to know
                self._has_tried.set()
                await self._has_started.wait()  # before that, nobody takes an ErrorFrame
                await self._push_lost(error, may_come_back=isinstance(error, Unavailable))
                if not isinstance(error, Unavailable):
                    return None
            await asyncio.sleep(pause)
            await asyncio.to_thread(self._client.wait_for_server, CONNECT_SECONDS)
            pause = min(2 * pause, LAST_RETRY)

    async def _show(self, conversation: Conversation) -> None:
        async for event in conversation:
            turn, self._is_showing = self._turn, not is_resting(event)
            if isinstance(event, ConversationFrame):
                await self._pace.wait(float(conversation.info.fps), is_speech=event.sound is not None)
            async with self._lock:
                if isinstance(event, ServerLost):
                    await self._push_lost(event.error, may_come_back=not event.is_final)
                elif isinstance(event, ServerBack):
                    logger.info(f"{self}: a new session has started")
                elif turn == self._turn:  # and not interrupted meanwhile
                    await self._push_event(conversation, event)
            self._is_showing = False
            if self._is_quiet(conversation):
                self._is_drained.set()

    async def _push_event(self, conversation: Conversation, event: ConversationFrame | SpeechEnd) -> None:
        if isinstance(event, SpeechEnd):
            for frame in self._order.segment_ended():
                await self.push_frame(frame)
            return
        height, width = event.image.shape[:2]
        image = OutputImageRawFrame(event.image.tobytes(), (width, height), "RGB")
        image.sync_with_audio = self._sync_with_audio
        context, image.transport_destination = self._order.context_at(event.position)
        await self.push_frame(image)
        if event.sound is not None:
            await self.stop_ttfb_metrics()
            sound = TTSAudioRawFrame(event.sound.tobytes(), conversation.sample_rate, 1, context_id=context)
            sound.transport_destination = image.transport_destination
            await self.push_frame(sound)
        for frame in self._order.reached(event.position):
            await self.push_frame(frame)

    async def _push_lost(self, error: Exception, *, may_come_back: bool) -> None:
        after = "new sessions are tried" if may_come_back else "give other arguments"
        await self.push_error(
            f"no avatar, only the voice: {error}; {after}", exception=error, category=_category(error)
        )

    async def _close(self) -> None:
        if self._conversation:
            self._conversation.close()
        if self._task:
            await self.cancel_task(self._task)
            self._task = None
        self._is_drained.set()


def _category(error: Exception) -> ErrorCategory:
    if isinstance(error, Unavailable) and error.code != 429:
        return ErrorCategory.CONNECTIVITY
    if isinstance(error, AvatarClientError):
        return classify_http_status_code(error.code)
    return ErrorCategory.INVALID_REQUEST
