"""Gateways for the tests of the page: real servers in a thread, with a job that goes on when a test says so."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from avatar.events import Progress, RenderResult
from avatar.inference.protocol import InferenceClient
from avatar.request import AvatarRequest
from gateway.app import create_app
from gateway.server import Server, listen
from gateway.settings import Settings
from tests.support.gateway_fakes import ReadyModels
from tests.support.media import moving_square, write_video

FRAMES = 50
HELD_AT = 20  # frames that are made while the job is held
WATCHED_SECONDS = 0.5  # after which a page watches the job, as a rule; it finds out later what it has missed
START_SECONDS = 60.0


class PacedRender:
    """A job whose result is a small video. While `held`, it stays at 20 of 50 frames; `error` is raised after them."""

    def __init__(self, folder: Path) -> None:
        self._video = write_video(folder / "made.mp4", moving_square(FRAMES)).read_bytes()
        self._go = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Let the jobs go on and succeed; forget those that were."""
        self._go.set()
        self.error: Exception | None = None
        self.requests: list[AvatarRequest] = []
        self.cancelled = 0
        self.stand_ins: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()

    def hold(self) -> None:
        """Let the next job stay at 20 frames, until `release`."""
        self._go.clear()

    def release(self) -> None:
        """Let the jobs go on."""
        self._go.set()

    async def __call__(self, request: AvatarRequest, models: InferenceClient) -> AsyncIterator[Progress | RenderResult]:
        self.requests.append(request)
        try:
            yield Progress("speech", FRAMES, FRAMES)
            if not self._go.is_set():
                await asyncio.sleep(WATCHED_SECONDS)
            yield Progress("encode", HELD_AT, FRAMES)
            while not self._go.is_set():  # noqa: ASYNC110 - the event is set in another thread
                await asyncio.sleep(0.01)
            if self.error:
                raise self.error
            yield Progress("encode", FRAMES, FRAMES)
            path = request.folder / "video.mp4"
            path.write_bytes(self._video)
            yield RenderResult(
                path=path,
                container="mp4",
                frames=FRAMES,
                fps=Fraction(25),
                duration=FRAMES / 25,
                seconds={"detect": 0.25, "lip sync": 1.5},
                stand_ins=self.stand_ins,
                notes=self.notes,
                encoder="x264",
            )
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise


class _Server(Server):
    """A server outside of the main thread, which gets no signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def gateway_in_thread(render: Any, folder: Path, **settings: Any) -> Iterator[str]:
    """Yield the URL of a gateway with this job and its files in `folder`.

    With a database, jobs can be submitted when the block starts.
    """
    work = folder / "work"
    work.mkdir(exist_ok=True)
    options = Settings(work_dir=work, store=str(folder / "store"), shutdown_grace=0.2, **settings)
    app = create_app(options, ReadyModels(stand_ins=render.stand_ins), render)
    server = _Server(app, options)
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    if options.database_url:
        wait_until(lambda: app.state.service.v1.schema.ready)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition is true; fail if it does not become true."""
    end = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
