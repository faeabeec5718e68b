"""An agent with a face in a LiveKit room that exists only in this process.

It reads a wav as if it were a text-to-speech service, is interrupted once, starts again, and writes what a viewer of
its two tracks sees and hears:

    python -m integrations.livekit.examples.agent_in_fake_room --server 127.0.0.1:8001 --out out/livekit.mp4

In a real agent, `room` is the room of the job, and `output` becomes `session.output.audio`; the rest is the same.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput

from avatar_livekit import AvatarVideoGenerator
from integrations.recorder import Recorder, pieces, read_wav

SAMPLES = Path(__file__).parents[3] / "samples"


class FakeRoom:
    """What an AvatarRunner uses of a room: it publishes tracks, which a viewer in this process subscribes to."""

    def __init__(self, viewer: Viewer) -> None:
        """Make a room with one viewer."""
        self.local_participant = self
        self._viewer = viewer

    def isconnected(self) -> bool:
        """Return True."""
        return True

    def on(self, *_: object) -> None:
        """Do nothing: the connection never changes."""

    off = on

    async def publish_track(self, track: rtc.LocalTrack, _: rtc.TrackPublishOptions) -> FakeRoom:
        """Give the track to the viewer; the room is also its publication."""
        self._viewer.watch(track)
        return self

    async def wait_for_subscription(self) -> None:
        """Return: the viewer has the track already."""


class Viewer:
    """Records the tracks of the avatar."""

    def __init__(self, recorder: Recorder, sample_rate: int) -> None:
        """Wait for tracks."""
        self._recorder, self._rate = recorder, sample_rate
        self._tasks: list[asyncio.Task[None]] = []

    def watch(self, track: rtc.LocalTrack) -> None:
        """Record a track from now on."""
        run = self._hear if track.kind == rtc.TrackKind.KIND_AUDIO else self._see
        self._tasks.append(asyncio.create_task(run(cast(rtc.Track, track))))

    async def _see(self, track: rtc.Track) -> None:
        async with aclosing(rtc.VideoStream(track, format=rtc.VideoBufferType.RGB24)) as stream:
            async for event in stream:
                frame = event.frame
                self._recorder.image(np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 3))

    async def _hear(self, track: rtc.Track) -> None:
        async with aclosing(rtc.AudioStream(track, sample_rate=self._rate, num_channels=1)) as stream:
            async for event in stream:
                self._recorder.sound(np.frombuffer(event.frame.data, np.int16))

    async def close(self) -> None:
        """Stop recording."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def speak(output: QueueAudioOutput, samples: np.ndarray[Any, np.dtype[np.int16]], rate: int) -> None:
    """Say something three times as fast as it is spoken, as text-to-speech services do."""
    for piece in pieces(samples, rate):
        await output.capture_frame(rtc.AudioFrame(piece.tobytes(), rate, 1, len(piece)))
        await asyncio.sleep(len(piece) / rate / 3)
    output.flush()


async def converse(output: QueueAudioOutput, arguments: argparse.Namespace) -> None:
    """Begin to speak, be interrupted, and say it again from the start to the end."""
    samples, rate = read_wav(arguments.speech)
    samples = samples[: round(arguments.seconds * rate)]
    await asyncio.sleep(arguments.pause)
    first = asyncio.create_task(speak(output, samples, rate))
    await asyncio.sleep(min(1.5, arguments.seconds / 2))
    first.cancel()  # the user speaks: no more words are made, and those that wait are dropped
    await asyncio.gather(first, return_exceptions=True)
    output.flush()
    output.clear_buffer()
    interrupted = await output.wait_for_playout()
    print(f"interrupted after {interrupted.playback_position:.2f} s of speech")
    await asyncio.sleep(arguments.pause)
    await speak(output, samples, rate)
    spoken = await output.wait_for_playout()
    print(f"said {spoken.playback_position:.2f} s of speech to the end")
    await asyncio.sleep(arguments.pause)


async def main(arguments: argparse.Namespace) -> None:
    """Run the agent once."""
    generator = await AvatarVideoGenerator.start(arguments.server, arguments.face)
    options = generator.options
    recorder = Recorder(arguments.out, options.video_width, options.video_height, options.audio_sample_rate)
    viewer = Viewer(recorder, options.audio_sample_rate)
    room = cast(rtc.Room, FakeRoom(viewer))
    output = QueueAudioOutput(sample_rate=options.audio_sample_rate)
    runner = AvatarRunner(room, audio_recv=output, video_gen=generator, options=options)
    await runner.start()
    try:
        await converse(output, arguments)
        print(f"{recorder.images} images, at {runner.av_sync.actual_fps:.1f} per second: {arguments.out}")
    finally:
        await runner.aclose()
        await generator.aclose()
        await viewer.close()
        recorder.close()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:8001", help="host:port of Triton's gRPC (%(default)s)")
    parser.add_argument("--face", type=Path, default=SAMPLES / "face.png", help="an image or a short video")
    parser.add_argument("--speech", type=Path, default=SAMPLES / "speech.wav", help="a 16-bit wav")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the speech that are said (%(default)s)")
    parser.add_argument(
        "--pause", type=float, default=1.0, help="seconds at rest before, between and after (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("livekit.mp4"), help="the recording (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    asyncio.run(main(parse()))
