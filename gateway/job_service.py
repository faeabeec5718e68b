"""What the calls of `/v1` share: the database of the jobs, the store of their files, and the state of both."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg

from avatar.errors import Busy, Unavailable
from avatar.resources.held import Held
from jobs.database import UNAVAILABLE, Database
from jobs.errors import DatabaseUnavailable
from jobs.migrate import SchemaMismatch, migrate
from jobs.net.client import UrlClient
from jobs.progress import ProgressHub
from jobs.repository.totals import QueueState, queue_state
from jobs.store import Store
from jobs.worker import Worker

from .errors import TooManyJobs
from .settings import Settings

logger = logging.getLogger(__name__)

MAX_UPLOADS = 128  # jobs and faces that are received at the same time; one client may have half of them
RETRY_SECONDS = 1.0  # between two attempts to reach the database
MISMATCH_SECONDS = 30.0  # between two looks at a database that this version cannot use
STATE_SECONDS = 3.0  # between two looks at the queue for the metrics
CHECK_SECONDS = 2.0  # a probe waits so long for the database


class Uploads:
    """Counts the jobs and faces that are being received, by client. For one event loop."""

    def __init__(self, most: int = MAX_UPLOADS) -> None:
        self._most = most
        self._held = Held()

    @contextmanager
    def hold(self, client: str) -> Iterator[None]:
        """Count an upload within the block. Raises Busy, TooManyJobs."""
        if self._held.total >= self._most:
            raise Busy(f"limit of {self._most} uploads at the same time reached; try again later", retry_after=1)
        if self._held.by(client) >= self._most // 2:
            raise TooManyJobs(f"limit of {self._most // 2} uploads at the same time per client address reached")
        with self._held.hold(client):
            yield


@dataclass
class Schema:
    """Whether the tables are those of this version; `fault` says why not.

    Attributes:
        tried: whether the first try to prepare them has ended, one way or the other.
    """

    ready: bool = False
    tried: bool = False
    fault: str = "the database does not answer yet"

    async def prepare(self, database: Database) -> None:
        """Bring the tables up to date as soon as the database answers; return then."""
        while True:
            pause = RETRY_SECONDS
            try:
                await migrate(database)
            except DatabaseUnavailable:
                self.fault = UNAVAILABLE
            except (SchemaMismatch, psycopg.Error) as error:
                pause = MISMATCH_SECONDS
                self.fault = str(error) if isinstance(error, SchemaMismatch) else "the tables cannot be created"
                logger.error("the database cannot be used: %s", error)
            else:
                self.ready = True
                return
            finally:
                self.tried = True
            await asyncio.sleep(pause)


class QueueObserver:
    """Reads the state of the queue for the metrics, at most every `STATE_SECONDS`, however often they are scraped."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._read_at = -STATE_SECONDS
        self._state: QueueState | None = None

    async def read(self, database: Database) -> QueueState | None:
        """Return the state; None if the database does not answer in time."""
        async with self._lock:
            now = time.monotonic()
            if now - self._read_at >= STATE_SECONDS:
                try:
                    async with asyncio.timeout(CHECK_SECONDS):
                        self._state = await queue_state(database)
                except (DatabaseUnavailable, TimeoutError):
                    self._state = None
                self._read_at = now
            return self._state


@dataclass(frozen=True)
class JobService:
    """State that the calls of `/v1` share; one per process.

    Attributes:
        progress: passes on what workers say about their jobs.
        urls: the client for URLs of callers.
        worker: runs jobs in this process; None if only other processes do.
        closing: set when the process is being stopped: streams of events end.
    """

    settings: Settings
    database: Database
    store: Store
    progress: ProgressHub
    urls: UrlClient
    worker: Worker | None = None
    schema: Schema = field(default_factory=Schema)
    uploads: Uploads = field(default_factory=Uploads)
    observer: QueueObserver = field(default_factory=QueueObserver)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key_lifetime(self) -> timedelta:
        """Return how long an Idempotency-Key counts."""
        return timedelta(hours=self.settings.idempotency_ttl)

    def close(self, grace: float) -> None:
        """End streams of events; take no more jobs, and give back after `grace` seconds those that still run.

        A second call gives them back at once if its grace is 0.
        """
        self.closing.set()
        if self.worker:
            self.worker.stop(grace)

    def check_schema(self) -> None:
        """Return if the tables are there. Raises DatabaseUnavailable."""
        if not self.schema.ready:
            raise DatabaseUnavailable(f"jobs cannot be handed over yet: {self.schema.fault}; try again later")

    def check_started(self) -> None:
        """Return if jobs can be handed over, or the database is away or of another version. Raises Unavailable.

        A start ends with the first try to prepare the tables: the first call that follows is not too early.
        """
        if not self.schema.tried:
            raise Unavailable("the gateway is starting: the tables of the jobs are being prepared", retry_after=1)

    async def queue_state(self) -> QueueState | None:
        """Return the state of the queue, at most `STATE_SECONDS` old; None while the database does not answer."""
        return await self.observer.read(self.database) if self.schema.ready else None

    async def fault(self) -> str | None:
        """Return why the database cannot be used; None if it can."""
        try:
            self.check_schema()
            async with asyncio.timeout(CHECK_SECONDS):
                await self.database.check()
        except (DatabaseUnavailable, TimeoutError) as error:
            return str(error) or UNAVAILABLE
        return None
