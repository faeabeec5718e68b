"""`python -m tests.support.stalling_worker MARKS [STEP]`: a worker with a tiny job, which stalls for good at a step.

It makes a file of the name of the step in the folder MARKS when it gets there. Its job takes TINY_JOB_SECONDS. SIGTERM
stops it as `python -m jobs worker`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from avatar.events import Progress, RenderResult
from avatar.inference.protocol import InferenceClient
from avatar.request import AvatarRequest
from avatar.resources.workspace import Workspace
from avatar.settings import load
from avatar.testing import FakeInference
from jobs import logging_config
from jobs.database import Database
from jobs.net.client import UrlClient
from jobs.settings import WorkerSettings
from jobs.store import Store, Stored
from jobs.worker import Worker


class Stall:
    """Waits for good at one step."""

    def __init__(self, marks: Path, step: str) -> None:
        self._marks, self._step = marks, step

    async def at(self, step: str) -> None:
        if step == self._step:
            (self._marks / step).touch()
            await asyncio.Event().wait()


class StallingStore(Store):
    stall: Stall

    async def fetch_file(self, key: str, path: Path) -> int:
        await self.stall.at("fetching")
        return await super().fetch_file(key, path)

    async def put_file(self, key: str, path: Path, *arguments: Any, **named: Any) -> Stored:
        await self.stall.at("storing")
        stored = await super().put_file(key, path, *arguments, **named)
        await self.stall.at("stored")
        return stored


def render_of(stall: Stall) -> Any:
    async def render(request: AvatarRequest, models: InferenceClient) -> AsyncIterator[Progress | RenderResult]:
        await stall.at("rendering")
        await asyncio.sleep(float(os.environ.get("TINY_JOB_SECONDS", "0")))
        video = request.folder / "video.mp4"
        video.write_bytes(request.face_path.read_bytes() + b"|" + request.audio_path.read_bytes())
        yield Progress("encode", 3, 3)
        yield RenderResult(path=video, container="mp4", frames=3, fps=Fraction(25), duration=0.12, seconds={})

    return render


async def main(marks: Path, step: str) -> None:
    settings = load(WorkerSettings)
    assert settings.database_url is not None
    stall = Stall(marks, step)
    store = StallingStore.open(settings.store)
    assert isinstance(store, StallingStore)
    store.stall = stall
    workspace = Workspace(settings.work_dir)
    workspace.open()
    async with Database(settings.database_url.get_secret_value()) as database, UrlClient(settings.url_rules) as urls:
        models = FakeInference()
        worker = Worker(database, store, urls, models, render_of(stall), settings, workspace, slots=2, retry_pause=0.1)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: worker.stop(settings.shutdown_grace))
        (marks / "started").touch()
        await worker.run()
    workspace.close()


if __name__ == "__main__":
    logging_config.configure("info", "text")
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
