"""Run jobs of the checkout that PYTHONPATH names, with networks that answer at once; in a process of its own.

Each line of stdin is a JSON object that describes a job; the answer is a line of JSON on stdout. Only modules that
every commit to compare with has are imported, and none of `bench`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import aclosing
from pathlib import Path

from avatar.events import Progress, RenderResult
from avatar.pipeline import render
from avatar.request import AvatarRequest, Background
from avatar.testing import FakeInference
from lipsync.arrays import Floats


class InstantNetworks(FakeInference):
    """Networks that answer at once; also the mel windows, from the second job with the same speech on."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[int, float], Floats] = {}

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """Return what the first call with this much audio returned."""
        key = len(audio), fps
        if key not in self._windows:
            self._windows[key] = await super().mel_windows(audio, fps)
        return self._windows[key]


class Processes:
    """Counts the processes that this one starts."""

    def __init__(self) -> None:
        self.count = 0
        sys.addaudithook(self._note)

    def _note(self, event: str, args: object) -> None:
        self.count += event == "subprocess.Popen"


async def measure(job: AvatarRequest, models: FakeInference, processes: Processes) -> dict[str, float]:
    """Do the job; return seconds until its first frame was encoded and in all, processor seconds, and processes."""
    started, cpu = processes.count, sum(os.times()[:4])
    begin = time.perf_counter()
    first = 0.0
    async with aclosing(render(job, models)) as events:
        async for event in events:
            if isinstance(event, Progress) and event.stage == "encode" and not first:
                first = time.perf_counter() - begin
            if isinstance(event, RenderResult) and event.path:
                event.path.unlink()
    total = time.perf_counter() - begin
    spent = sum(os.times()[:4]) - cpu
    return {"first": first, "total": total, "cpu": spent, "processes": processes.count - started}


async def main() -> None:
    """Answer every line of stdin."""
    processes, models = Processes(), InstantNetworks()
    while line := await asyncio.to_thread(sys.stdin.readline):
        given = json.loads(line)
        face, speech = Path(given["face"]), Path(given["speech"])
        job = AvatarRequest(face, speech, given["still"], Background.FROM_INPUT, face.parent)
        print(json.dumps(await measure(job, models, processes)), flush=True)


asyncio.run(main())
