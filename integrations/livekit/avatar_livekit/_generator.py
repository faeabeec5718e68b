"""The video generator of LiveKit Agents over a conversation with the avatar."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Literal

from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from avatar_client import AvatarClient, File, LiveOptions
from avatar_client.conversation import Conversation, ConversationFrame, ServerBack, ServerLost, SpeechEnd

from ._speech import SpeechConverter

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

logger = logging.getLogger("avatar_livekit")
SECONDS = 60.0  # for one response of the server, such as the start of a session with a video avatar


class AvatarVideoGenerator(VideoGenerator, rtc.EventEmitter[Literal["server_lost", "server_back"]]):
    """Turns an agent's speech into video and audio frames that belong together, and into frames at rest in between.

    It lives on the event loop of the agent, and never blocks it. While the server is lost, the speech goes on with the
    last image, and new sessions are tried. Handlers of the event `server_lost` get the AvatarClientError; those of
    `server_back` get nothing.

    Attributes:
        conversation: the session with the server.
    """

    def __init__(self, conversation: Conversation, client: AvatarClient | None = None) -> None:
        """Made by `start`. `aclose` closes the `client`, too."""
        super().__init__()
        self.conversation = conversation
        self._client = client
        self._speech = SpeechConverter(conversation.sample_rate)
        self._turn = 0  # number of interruptions

    @classmethod
    async def start(
        cls,
        server: str | Sequence[str] | AvatarClient,
        face: File | None = None,
        /,
        *,
        sample_rate: int = 24_000,
        avatar: str | None = None,
        **options: Unpack[LiveOptions],
    ) -> Self:
        """Start a session, and wait for the first image.

        Args:
            server: host:port of Triton's gRPC, or several; or a client, which stays open.
            face: an image or a short video, its bytes or its path; with `avatar` it may be None.
            sample_rate: Hz of the audio frames that come out, 8000 to 48000; those that go in may have any rate.
            avatar: the id of a prepared avatar.
            options: those of `AvatarClient.live`, such as `background="White"`.

        Raises:
            AvatarClientError: the session did not start.
            OSError: a file cannot be read.
            TypeError, ValueError: an option that a conversation cannot have.
        """
        own = None if isinstance(server, AvatarClient) else AvatarClient(server, timeout=SECONDS)
        client = server if isinstance(server, AvatarClient) else own
        assert client is not None  # noqa: S101 - one of the two
        try:
            conversation = await Conversation.start(client, face, sample_rate=sample_rate, avatar=avatar, **options)
        except BaseException:
            if own:
                own.close()
            raise
        return cls(conversation, own)

    @property
    def options(self) -> AvatarOptions:
        """What an AvatarRunner of this generator has to be given."""
        info = self.conversation.info
        return AvatarOptions(
            video_width=info.width,
            video_height=info.height,
            video_fps=float(info.fps),
            audio_sample_rate=self.conversation.sample_rate,
            audio_channels=1,
        )

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Add speech of any rate, or end a segment of it. It waits only while a minute of speech waits already."""
        if isinstance(frame, AudioSegmentEnd):
            await self.conversation.say(self._speech.flush())
            self.conversation.end_segment()
        else:
            await self.conversation.say(self._speech.convert(frame))

    def clear_buffer(self) -> None:
        """Drop all speech whose frames were not taken. Nothing of it comes out after this call."""
        self._turn += 1
        self._speech.reset()
        self.conversation.interrupt()

    def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """Yield each video frame before its sound; an AudioSegmentEnd after each segment that was not interrupted."""
        return self._frames()

    async def _frames(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        async for event in self.conversation:
            if isinstance(event, ConversationFrame):
                turn = self._turn
                yield _video_frame(event)
                if event.sound is not None and turn == self._turn:  # the consumer may have waited
                    rate = self.conversation.sample_rate
                    yield rtc.AudioFrame(event.sound.tobytes(), rate, 1, len(event.sound))
            elif isinstance(event, SpeechEnd):
                yield AudioSegmentEnd()
            else:
                self._report(event)

    def _report(self, event: ServerLost | ServerBack) -> None:
        if isinstance(event, ServerLost):
            after = "the voice goes on" if event.is_final else "the voice goes on, and new sessions are tried"
            logger.warning("the avatar's server is lost: %s; %s", event.error, after)
            self.emit("server_lost", event.error)
        else:
            logger.info("the avatar has a new session")
            self.emit("server_back")

    async def aclose(self) -> None:
        """End the session at once. The iteration ends after what was received."""
        self.conversation.close()
        if self._client:
            await asyncio.to_thread(self._client.close)


def _video_frame(event: ConversationFrame) -> rtc.VideoFrame:
    height, width = event.image.shape[:2]
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, event.image.tobytes())
