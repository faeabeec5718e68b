"""A long clip takes no more memory than a short one.

`make test` runs it on small, short clips, `make test-long` on ten minutes of 1080p.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.media import ffmpeg

ROOT = Path(__file__).parents[3]
LONG = int(os.environ.get("AVATAR_TEST_SECONDS", "25"))
SIZE = "1920x1080" if LONG >= 600 else "320x180"
SHORT = 10
FILLING = 32 << 10  # KiB that ffmpeg's queues still fill after SHORT; the frames after it would take 64 MiB

JOB = """
import asyncio, gc, json, resource, sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from avatar.events import RenderResult
from avatar.form.fields import parse_options
from avatar.pipeline import render
from avatar.request import AvatarRequest, Background
from avatar.testing import FakeInference

async def main(folder, options):
    job = AvatarRequest(folder / "face.mp4", folder / "speech.mp3", False, Background.FROM_INPUT, folder)
    async with aclosing(render(replace(job, options=parse_options(options)), FakeInference())) as events:
        async for event in events:
            if isinstance(event, RenderResult):
                return event.frames

gc.set_threshold(700)  # of every Python but 3.13.0, where the memory of a job levels off later
frames = asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
peaks = [resource.getrusage(process).ru_maxrss for process in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps([frames, *peaks]))
"""


def peaks(folder: Path, seconds: int, options: dict[str, str]) -> tuple[int, int]:
    """Return the peak memory of the job, and of the largest ffmpeg that it started, in KiB."""
    folder.mkdir()
    duration = f"d={seconds}"
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={SIZE}:r=25:{duration}", "-preset", "ultrafast", str(folder / "face.mp4"))
    ffmpeg("-f", "lavfi", "-i", f"anoisesrc=a=0.1:{duration}", "-b:a", "32k", str(folder / "speech.mp3"))
    command = [sys.executable, "-c", JOB, str(folder), json.dumps(options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    frames, own, child = json.loads(done.stdout)
    assert abs(frames - 25 * seconds) <= 4  # an MP3 is a little longer
    return own, child


@pytest.mark.parametrize("options", [{}, pytest.param({"no_face": "keep"}, marks=pytest.mark.slow)], ids=str)
def test_a_long_clip_takes_the_memory_of_a_short_one(tmp_path: Path, options: dict[str, str]) -> None:
    short, long = [peaks(tmp_path / str(seconds), seconds, options) for seconds in (SHORT, LONG)]
    print(f"{options}: job {short[0] >> 10} MiB at {SHORT} s, {long[0] >> 10} MiB at {LONG} s of {SIZE};", end=" ")
    print(f"ffmpeg {short[1] >> 10} and {long[1] >> 10} MiB")
    assert long[0] <= 1.2 * short[0]
    assert long[1] <= 1.2 * short[1] + FILLING
