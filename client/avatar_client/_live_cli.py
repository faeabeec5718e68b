"""The command `avatar live`: speech into a live session, its frames into a folder, a file or a player."""

from __future__ import annotations

import argparse
import math
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import _cli_types as cli
from ._cli_parser import DONE, Subparsers, add_server, add_timeout, server_of
from ._cli_parser import add_command as add
from ._client import AvatarClient
from ._console import Console
from ._errors import AvatarClientError, InvalidRequest
from ._events import Frame
from ._files import atomic_write
from ._live import LiveSession
from ._live_inputs import mono
from ._options import LIVE_NAMES
from ._render_cli import shown_path
from ._schema import LIVE_SAMPLE_RATES, SAMPLE_RATE

_SECONDS = 60.0
BLOCK_SECONDS = 0.04  # of speech that are sent at once
MIN_RATE, MAX_RATE = LIVE_SAMPLE_RATES
STDIN = "-"

Block = NDArray[np.int16]


def add_command(commands: Subparsers) -> None:
    """Add the command to the parser of `avatar`."""
    command = add(
        commands,
        "live",
        "speak through a live session, and write its frames",
        _live,
        description="Start a live session, send it speech, and write its frames as JPEGs while they arrive: into a "
        "folder, or one after the other into a file or a pipe.",
        epilog="Examples: avatar live face.jpg speech.wav -o frames; with a microphone: arecord -f S16_LE -r 16000 "
        "-c 1 -t raw | avatar live face.jpg - -o - | ffplay -f mjpeg -\n\nThe frames are shown at the rate that the "
        "result says. --set takes the options of the form except quality and background_video.",
        progress=True,
    )
    command.add_argument("face", type=Path, help="an image or a short video that shows a face")
    command.add_argument(
        "speech", help="a WAV file of 16 bits; - reads 16-bit mono samples (little endian) from standard input"
    )
    command.add_argument(
        "-o",
        "--out",
        type=cli.out,
        required=True,
        metavar="FILE",
        help="a folder, which exists or whose name has no extension; or a file of JPEGs, one after the other; - is "
        "standard output",
    )
    command.add_argument(
        "--rate", type=_rate, default=SAMPLE_RATE, metavar="HZ", help=f"of standard input (default {SAMPLE_RATE})"
    )
    command.add_argument(
        "--realtime", action="store_true", help="send a file as fast as it is spoken, and not as fast as possible"
    )
    add_server(command)
    cli.add_set(command)
    add_timeout(command, _SECONDS)


def _rate(text: str) -> int:
    if not text.isdecimal() or not MIN_RATE <= int(text) <= MAX_RATE:
        raise argparse.ArgumentTypeError(f"a rate from {MIN_RATE} to {MAX_RATE} expected, got {text!r}")
    return int(text)


def _live(options: argparse.Namespace, console: Console) -> int:
    chosen = dict(options.set)
    if unknown := sorted(chosen.keys() - LIVE_NAMES):
        options.parser.error(f"not an option of a live session: {', '.join(unknown)}")
    rate, seconds, blocks = _speech(options.speech, options.rate)
    with ExitStack() as stack:
        write = _writer(options.out, stack)
        client = stack.enter_context(AvatarClient(server_of(options), timeout=options.timeout))
        session = stack.enter_context(client.live(options.face, sample_rate=rate, format="jpeg", **chosen))
        sender = _Sender(session, blocks, rate, realtime=options.realtime and seconds is not None)
        sender.start()
        expected = None if seconds is None else math.ceil(seconds * session.info.fps)
        first, count = 0.0, 0
        for frame in sender.frames():
            write(frame)
            count += 1
            first = first or time.monotonic() - sender.began
            # one or two frames more than the speech lasts are made
            console.bar.show("live", count if expected is None else min(count, expected), expected)
    info, summary = session.info, session.summary
    document = {
        "out": shown_path(options.out),
        "frames": count,
        "frames_without_face": summary.without_face if summary else None,
        "duration": summary.duration if summary else None,
        "fps": str(info.fps),
        "width": info.width,
        "height": info.height,
        "latency": info.latency,
        "first_frame": round(first, 3),
    }
    text = (
        f"{options.out}: {count} frames of {info.width}x{info.height} at {info.fps} fps, the first after {first:.2f} s"
    )
    console.result(document, text)
    return DONE


def _speech(source: str, rate: int) -> tuple[int, float | None, Iterator[Block]]:
    """Return the rate of the speech, its seconds if they are known, and its samples. Raises OSError, InvalidRequest."""
    if source == STDIN:
        return rate, None, _from_pipe(rate)
    try:
        with wave.open(source, "rb") as file:
            channels, width, found, count = file.getparams()[:4]
            data = file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise InvalidRequest(f"speech: a WAV of 16 bits expected: {error}") from error
    if width != 2 or not MIN_RATE <= found <= MAX_RATE:
        raise InvalidRequest(
            f"speech: a WAV of 16 bits and {MIN_RATE} to {MAX_RATE} Hz expected, got {8 * width} bits and {found} Hz"
        )
    samples, step = mono(data, channels), round(found * BLOCK_SECONDS)
    return found, len(samples) / found, (samples[begin : begin + step] for begin in range(0, len(samples), step))


def _from_pipe(rate: int) -> Iterator[Block]:
    size = 2 * round(rate * BLOCK_SECONDS)
    while data := sys.stdin.buffer.read(size):
        yield np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16)


class _Sender(threading.Thread):
    """Sends the speech while the caller takes the frames, and ends the session.

    Attributes:
        began: when the sending began, of the monotonic clock.
    """

    def __init__(self, session: LiveSession, blocks: Iterator[Block], rate: int, *, realtime: bool) -> None:
        super().__init__(daemon=True)  # standard input may have no end
        self.began = time.monotonic()
        self._session, self._blocks, self._rate, self._realtime = session, blocks, rate, realtime
        self._error: Exception | None = None

    def run(self) -> None:
        """Send all blocks; the last one may be too short for a request of its own."""
        sent, whole = 0, round(self._rate * BLOCK_SECONDS)
        try:
            for block in self._blocks:
                if len(block) < whole:
                    self._session.end(block)
                    return
                self._session.send(block)
                sent += len(block)
                if self._realtime:
                    time.sleep(max(0.0, self.began + sent / self._rate - time.monotonic()))
            self._session.end()
        except Exception as error:  # `frames` raises it
            self._error = error
            self._session.cancel()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of the session; raise what went wrong on either side."""
        try:
            yield from self._session.frames()
        except AvatarClientError:
            if self._error:
                raise self._error from None
            raise


def _writer(out: Path, stack: ExitStack) -> Callable[[Frame], object]:
    """Return a function that writes a frame: into a folder, or a file of JPEGs. Raises OSError."""
    if out.is_dir() or (not out.suffix and not out.exists()):
        out.mkdir(parents=True, exist_ok=True)
        return lambda frame: (out / f"{frame.index:06d}.jpg").write_bytes(frame.jpeg or b"")
    file = stack.enter_context(atomic_write(out))
    return lambda frame: file.write(frame.jpeg or b"")
