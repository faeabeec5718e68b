"""A Pipecat bot with a face, on a transport that exists only in this process.

It reads a wav as if it were a text-to-speech service, is interrupted once, starts again, and writes what a viewer sees
and hears:

    python -m integrations.pipecat.examples.agent_on_fake_transport --server 127.0.0.1:8001 --out out/pipecat.mp4

In a real bot, the frames of `converse` come from a text-to-speech service, and `FakeTransport` is that of a call.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
from pipecat.frames.frames import (
    EndFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

from avatar_pipecat import AvatarVideoService
from integrations.recorder import Recorder, pieces, read_wav

SAMPLES = Path(__file__).parents[3] / "samples"
RATE = 24_000


class FakeTransport(BaseOutputTransport):
    """Records what it should send, in real time."""

    def __init__(self, recorder: Recorder, params: TransportParams) -> None:
        """Make a transport."""
        super().__init__(params)
        self._recorder = recorder
        self._played_at = 0.0  # time at which the sound so far has been played

    async def start(self, frame: StartFrame) -> None:
        """Take frames from now on."""
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_video_frame(self, frame: OutputImageRawFrame) -> bool:
        """Record an image."""
        width, height = frame.size
        self._recorder.image(np.frombuffer(frame.image, np.uint8).reshape(height, width, 3))
        return True

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Record sound, and return when the sound before it has been played."""
        now = time.monotonic()
        start = max(self._played_at, now)
        await asyncio.sleep(start - now)
        self._played_at = start + frame.num_frames / frame.sample_rate
        self._recorder.sound(np.frombuffer(frame.audio, np.int16), at=start)
        return True


async def speak(worker: PipelineWorker, samples: np.ndarray[Any, np.dtype[np.int16]], rate: int) -> None:
    """Say something three times as fast as it is spoken, as text-to-speech services do."""
    await worker.queue_frame(TTSStartedFrame())
    for piece in pieces(samples, rate):
        await worker.queue_frame(TTSAudioRawFrame(piece.tobytes(), rate, 1))
        await asyncio.sleep(len(piece) / rate / 3)
    await worker.queue_frame(TTSStoppedFrame())


async def converse(worker: PipelineWorker, arguments: argparse.Namespace) -> None:
    """Begin to speak, be interrupted, and say it again from the start to the end."""
    samples, rate = read_wav(arguments.speech)
    samples = samples[: round(arguments.seconds * rate)]
    await asyncio.sleep(arguments.pause)
    first = asyncio.create_task(speak(worker, samples, rate))
    await asyncio.sleep(min(1.5, arguments.seconds / 2))
    first.cancel()  # the user speaks: no more words are made, and those that wait are dropped
    await asyncio.gather(first, return_exceptions=True)
    await worker.queue_frame(InterruptionFrame())
    await asyncio.sleep(arguments.pause)
    await speak(worker, samples, rate)
    await worker.queue_frame(EndFrame())  # it passes when all of the speech has come out


async def main(arguments: argparse.Namespace) -> None:
    """Run the bot once."""
    recorder = Recorder(arguments.out, arguments.width, arguments.height, RATE)
    service = AvatarVideoService(server=arguments.server, face=arguments.face)
    params = TransportParams(
        audio_out_enabled=True,
        audio_out_end_silence_secs=0,
        video_out_enabled=True,
        video_out_is_live=True,
        video_out_width=arguments.width,
        video_out_height=arguments.height,
        video_out_framerate=25,
    )
    worker = PipelineWorker(
        Pipeline([service, FakeTransport(recorder, params)]),
        params=PipelineParams(audio_out_sample_rate=RATE),
        enable_rtvi=False,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    talking = asyncio.create_task(converse(worker, arguments))
    try:
        await runner.run()
    finally:
        talking.cancel()
        recorder.close()
    print(f"{recorder.images} images, {recorder.seconds:.2f} s of sound: {arguments.out}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:8001", help="host:port of Triton's gRPC (%(default)s)")
    parser.add_argument("--face", type=Path, default=SAMPLES / "face.png", help="an image or a short video")
    parser.add_argument("--width", type=int, default=640, help="of the images that the transport sends (%(default)s)")
    parser.add_argument("--height", type=int, default=480, help="of them (%(default)s)")
    parser.add_argument("--speech", type=Path, default=SAMPLES / "speech.wav", help="a 16-bit wav")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the speech that are said (%(default)s)")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds at rest before and between (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("pipecat.mp4"), help="the recording (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    asyncio.run(main(parse()))
