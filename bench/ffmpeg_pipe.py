"""Give ffmpeg raw frames through a pipe."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from fcntl import F_SETPIPE_SZ, fcntl

from avatar.media.ffmpeg import executable


def run(args: Sequence[str], frames: Iterable[memoryview], pipe_bytes: int | None = None) -> None:
    """Run ffmpeg with these arguments, and write the frames to its stdin.

    Args:
        args: without the program.
        frames: the bytes of each frame.
        pipe_bytes: size of the pipe; by default that of the system.

    Raises:
        OSError: ffmpeg cannot be started, or it failed.
    """
    process = subprocess.Popen([executable(), *args], stdin=subprocess.PIPE, process_group=0)
    try:
        assert process.stdin  # noqa: S101 - for mypy; it is a pipe
        pipe = process.stdin.fileno()
        if pipe_bytes:
            fcntl(pipe, F_SETPIPE_SZ, pipe_bytes)
        for frame in frames:
            while frame:
                frame = frame[os.write(pipe, frame) :]
        process.stdin.close()
        if process.wait():
            raise OSError(f"ffmpeg ended with status {process.returncode}")
    finally:
        process.kill()
        process.wait()
