"""Write small media files, and decode results frame by frame."""

from __future__ import annotations

import asyncio
import struct
import subprocess
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from avatar.events import Progress, RenderResult
from avatar.inference.protocol import InferenceClient
from avatar.limits import Limits
from avatar.media.ffmpeg import executable
from avatar.media.probe import read_facts
from avatar.media.video import Video, open_video
from avatar.options import Options
from avatar.pipeline import render
from avatar.request import AvatarRequest, Background

RATE = 16_000
Frames = NDArray[np.uint8]  # [n,H,W,3] BGR


def ffmpeg(*args: str, data: bytes = b"") -> bytes:
    return subprocess.run(
        [executable(), "-hide_banner", "-loglevel", "error", *args], input=data, capture_output=True, check=True
    ).stdout


def tone(seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    """Return a tone that swells three times per second, like a voice."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * 220 * t) * np.abs(np.sin(3 * np.pi * t))).astype(np.float32)


def write_wav(path: Path, samples: NDArray[np.float32], rate: int = RATE) -> Path:
    """Write samples [n] or [n, channels] to a float wav, unchanged, including NaN."""
    data = np.ascontiguousarray(samples, "<f4")
    channels = 1 if data.ndim == 1 else data.shape[1]
    head = struct.pack("<IHHIIHH", 16, 3, channels, rate, rate * 4 * channels, 4 * channels, 32)
    size = data.nbytes
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + head + b"data" + struct.pack("<I", size) + data.tobytes()
    )
    return path


def moving_square(count: int, width: int = 160, height: int = 120) -> Frames:
    """Return frames with a white square, 40×40, that moves two pixels to the right and one down per frame."""
    y, x = np.mgrid[0:height, 0:width]
    still = np.stack((x * 120 // width, y * 120 // height, (x + y) * 60 // (width + height)), axis=2).astype(np.uint8)
    frames = np.repeat(still[None], count, axis=0)
    for n, frame in enumerate(frames):
        left, top = 10 + 2 * n % (width - 60), 10 + n % (height - 60)
        frame[top : top + 40, left : left + 40] = 255
    return frames


def find_square(image: Frames) -> tuple[float, float, float, float] | None:
    """Return the box of the white square."""
    rows, columns = np.where((image > 200).all(axis=2))
    if not len(rows):
        return None
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def write_video(path: Path, frames: Frames, fps: str = "25", extra: Sequence[str] = ()) -> Path:
    """Encode frames to a video with hardly any loss."""
    height, width = frames.shape[1:3]
    raw = ["-f", "rawvideo", "-pixel_format", "bgr24", "-video_size", f"{width}x{height}", "-framerate", fps]
    codec = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-pix_fmt", "yuv444p"]
    ffmpeg(*raw, "-i", "pipe:0", *codec, *extra, "-y", str(path), data=frames.tobytes())
    return path


def write_still(path: Path, width: int = 160, height: int = 120) -> Path:
    cv2.imwrite(str(path), moving_square(1, width, height)[0])
    return path


async def probe_video(path: Path, options: Options, limits: Limits) -> Video:
    """Return the video as a job opens it, without a cache."""
    return open_video(path, await read_facts(path, limits), options, limits)


def file_of(result: RenderResult) -> Path:
    """Return the file of a result; a streamed result has none."""
    assert result.path is not None
    return result.path


def read_video(path: Path) -> Frames:
    """Decode all frames with OpenCV, as the original does."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (frame := capture.read())[0]:
        frames.append(frame[1])
    return np.stack(frames)


def frame_rate(path: Path) -> float:
    return float(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS))


def read_sound(path: Path, rate: int = RATE) -> NDArray[np.float32]:
    return np.frombuffer(ffmpeg("-i", str(path), "-ac", "1", "-ar", str(rate), "-f", "f32le", "pipe:1"), "<f4")


def frame_count(samples: int, fps: Fraction | int, rate: int = RATE) -> int:
    """Return `ceil(duration · fps)` in exact arithmetic."""
    return -(-Fraction(samples, rate) * fps // 1).__int__()


def request(
    folder: Path, face: Path, speech: Path, *, still: bool, background: Background = Background.FROM_INPUT
) -> AvatarRequest:
    return AvatarRequest(face, speech, still, background, folder, id="test")


async def run(job: AvatarRequest, models: InferenceClient) -> RenderResult:
    """Run a whole job, and assert that the progress of its encoding increases by one frame at a time."""
    done, result = 0, None
    async with aclosing(render(job, models)) as events:
        async for event in events:
            if isinstance(event, Progress) and event.stage == "encode":
                assert event.done == done + 1
                done = event.done
            if isinstance(event, RenderResult):
                result = event
    assert result is not None
    assert result.frames == done
    return result


def children() -> set[int]:
    """Return the ids of the child processes of this process, including zombies."""
    pids: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            pids |= {int(pid) for pid in (task / "children").read_text().split()}
    return pids


def names(folder: Path) -> set[str]:
    """Return the names of the files in a folder."""
    return {file.name for file in folder.iterdir()}


def other_tasks() -> set[asyncio.Task[object]]:
    """Return the tasks that run besides this one, without the self-test of ffmpeg, which no single job owns."""
    return {
        task
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task() and "SelfTest." not in str(task.get_coro())
    }


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Poll until the condition is true; fail after this time."""
    for _ in range(int(seconds * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the condition is still false after {seconds} s")
