"""The progress of running jobs: workers publish it by NOTIFY, and the gateway passes it on to who watches a job.

It does not go through the tables, except for what the heartbeat of a worker writes: a job has thousands of frames.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import TracebackType
from uuid import UUID

from .background import background
from .database import Database
from .errors import DatabaseUnavailable
from .records import Progress
from .repository.rows import EVENTS_CHANNEL

logger = logging.getLogger(__name__)

CHANNEL = "avatar_progress"  # payload: {"job": id, "stage": text, "done": frames, "total": frames or null}
MIN_SECONDS = 0.5  # between two notifications of a job in the same stage


class ProgressPublisher:
    """Publishes the progress of one job: a new stage at once, frames at most every `MIN_SECONDS`.

    Attributes:
        latest: what was reported last.
    """

    def __init__(self, database: Database, job_id: UUID) -> None:
        self._database, self._job_id = database, job_id
        self._reported = asyncio.Event()
        self.latest: Progress | None = None

    def report(self, progress: Progress) -> None:
        """Remember the progress, to be published by `publishing`."""
        self.latest = progress
        self._reported.set()

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publish within the block what is reported. A database that is away makes no difference to the job."""
        async with background(self._publish()):
            yield

    async def _publish(self) -> None:
        published, at = None, -MIN_SECONDS
        while True:
            await self._reported.wait()
            self._reported.clear()
            progress = self.latest
            if progress is None or progress == published:
                continue
            if published is not None and published.stage == progress.stage:
                await self._pause(progress, at + MIN_SECONDS - time.monotonic())
                progress = self.latest or progress
            published, at = progress, time.monotonic()
            with suppress(DatabaseUnavailable):
                await self._database.fetch("SELECT pg_notify(%s, %s)", CHANNEL, self._payload(progress))

    async def _pause(self, progress: Progress, seconds: float) -> None:
        """Return after `seconds`, or as soon as another stage is reported."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.latest is None or self.latest.stage == progress.stage:
                    self._reported.clear()
                    await self._reported.wait()

    def _payload(self, progress: Progress) -> str:
        fields = {"stage": progress.stage, "done": progress.frames_done, "total": progress.frames_total}
        return json.dumps({"job": str(self._job_id), **fields})


class Changes:
    """What has changed of one job since the last call of `get`."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._events = False
        self._progress: Progress | None = None

    async def get(self) -> Progress | None:
        """Wait for a change: the newest progress, or None if an event of the job was written or may have been."""
        await self._changed.wait()
        if self._events:
            self._events = False
            progress = None
        else:
            progress, self._progress = self._progress, None
        if self._progress is None:
            self._changed.clear()
        return progress

    def add_event(self) -> None:
        """Say that the events of the job have to be read."""
        self._events = True
        self._changed.set()

    def add_progress(self, progress: Progress) -> None:
        """Replace the progress that waits."""
        self._progress = progress
        self._changed.set()


class ProgressHub:
    """Passes the notifications of the database on to the callers that watch a job; one per process.

    Args:
        database: its listening connection is used; create the hub within the event loop.
    """

    def __init__(self, database: Database) -> None:
        self._watched: dict[str, list[Changes]] = {}
        self._end: tuple[Callable[[], None], ...] = (
            database.listen(CHANNEL, self._on_progress),
            database.listen(EVENTS_CHANNEL, self._on_event),
            database.on_connected(self._on_connected),
        )

    def __enter__(self) -> ProgressHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription to the database's notifications."""
        for end in self._end:
            end()
        self._end = ()

    @contextmanager
    def subscribe(self, job_id: UUID) -> Iterator[Changes]:
        """Yield the changes of a job within the block. Read the job's events after this call: none is missed then."""
        key, changes = str(job_id), Changes()
        self._watched.setdefault(key, []).append(changes)
        try:
            yield changes
        finally:
            self._watched[key].remove(changes)
            if not self._watched[key]:
                del self._watched[key]

    def _on_progress(self, payload: str) -> None:
        with _ignoring_foreign(payload):
            value = json.loads(payload)
            progress = Progress(value["stage"], value["done"], value["total"])
            for changes in self._watched.get(value["job"], ()):
                changes.add_progress(progress)

    def _on_event(self, payload: str) -> None:
        with _ignoring_foreign(payload):
            for changes in self._watched.get(json.loads(payload)["job"], ()):
                changes.add_event()

    def _on_connected(self) -> None:
        for watching in self._watched.values():
            for changes in watching:
                changes.add_event()


@contextmanager
def _ignoring_foreign(payload: str) -> Iterator[None]:
    """Log a payload that is not ours, and go on."""
    try:
        yield
    except (ValueError, KeyError, TypeError):
        logger.warning("ignored a notification of another program: %r", payload[:200])
