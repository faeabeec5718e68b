"""A worker: takes jobs from the queue as long as it has free slots, and runs them.

It takes a job only when it can start it at once: when a slot is free, when the machine has a place (in the gateway's
process forms and jobs wait in one queue for them), and when the models are ready.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from avatar.errors import ShuttingDown, Unavailable
from avatar.inference.protocol import InferenceClient
from avatar.load import wait_for
from avatar.resources.admission import Admission
from avatar.resources.workspace import Workspace
from avatar.tracing import request_id, span

from . import queue
from .attempt import HEARTBEATS, Attempt
from .background import run_unless
from .database import Database
from .errors import DatabaseUnavailable
from .execution import Execution, Render
from .net.client import UrlClient
from .reports import NO_REPORT, WorkerReport
from .repository import leases, work
from .repository.leases import Lease
from .repository.running import WAKE_CHANNEL
from .settings import ServiceSettings
from .store import Store

logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0  # between two looks at the queue without a notification: for jobs that pause, and for lost workers
RETRY_PAUSE = 5.0  # seconds before the second attempt after a fault of the machine
_CRASH_PAUSE = 1.0


class Worker:
    """Runs jobs of the queue. `run` returns after `stop`.

    Args:
        urls: the client for URLs of callers.
        models, render, workspace: as in the gateway.
        slots: jobs at the same time.
        admission: the places of the machine, if others need them too; a job takes one before it leaves the queue.
        report: receives what happens to the jobs.
        before: is awaited before a job is taken, and raises Unavailable if this machine cannot run one.
        retry_pause: seconds before the second attempt at a job after a fault of the machine.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        urls: UrlClient,
        models: InferenceClient,
        render: Render,
        settings: ServiceSettings,
        workspace: Workspace,
        *,
        slots: int,
        admission: Admission | None = None,
        report: WorkerReport = NO_REPORT,
        before: Callable[[], Awaitable[None]] | None = None,
        retry_pause: float = RETRY_PAUSE,
    ) -> None:
        self.id = uuid.uuid4()
        self._database, self._settings, self._slots = database, settings, slots
        self._execution = Execution(store, urls, models, render, settings, workspace)
        self._admission, self._report, self._before = admission, report, before
        self._retry_pause = retry_pause
        self._poll = min(POLL_SECONDS, settings.job_lease / HEARTBEATS)
        self._attempts: dict[int, Attempt] = {}  # by the row of the queue
        self._claiming = 0  # slots that have seen a job and are about to take it
        self._looking = asyncio.Lock()  # one idle slot looks at the queue for all of them
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._give_back = False
        self._was_away = False  # the database, at the last look
        self._complaint = ""  # why no jobs are taken, as it was logged

    @property
    def running(self) -> int:
        """Number of jobs that run."""
        return len(self._attempts)

    async def run(self) -> None:
        """Run jobs until `stop` was called and every job has ended or is given back.

        If this is cancelled, all jobs are given back first.
        """
        end = (
            self._database.listen(queue.channel(), self._on_notification),
            self._database.listen(WAKE_CHANNEL, lambda _: self._wake.set()),
            self._database.on_connected(self._on_connected),
        )
        slots = [asyncio.create_task(self._slot()) for _ in range(self._slots)]
        try:
            await asyncio.wait(slots)
        except asyncio.CancelledError:
            self.stop(0)
            await asyncio.wait(slots)
            raise
        finally:
            for each in end:
                each()

    def stop(self, grace: float) -> None:
        """Take no more jobs; those that still run after `grace` seconds are given back. Call it in the event loop."""
        self._stopping.set()
        if grace > 0:
            asyncio.get_running_loop().call_later(grace, self._give_all_back)
        else:
            self._give_all_back()

    async def _slot(self) -> None:
        while not self._stopping.is_set():
            try:
                await run_unless(self._stopping, self._look())
                if not self._stopping.is_set():
                    await self._take()
            except ShuttingDown:
                return
            except DatabaseUnavailable as error:
                self._complain(error)
            except Exception:
                logger.exception("a slot of the worker failed; it goes on")
                await asyncio.sleep(_CRASH_PAUSE)

    async def _look(self) -> None:
        """Return when there is a job for this slot, and it could run."""
        async with self._looking:
            while True:
                self._wake.clear()
                try:
                    if await self._has_job():
                        return
                except Unavailable as error:
                    self._complain(error)
                await wait_for(self._wake, self._poll)

    async def _has_job(self) -> bool:
        try:
            found = await work.claimable(self._database, self._settings.lease, self._claiming + 1)
        except DatabaseUnavailable:
            self._was_away = True
            raise
        if self._was_away:  # then the leases of all workers look old: each extends its own first
            self._was_away = False
            await asyncio.sleep(self._settings.job_lease / HEARTBEATS)
            return False
        if found <= self._claiming:
            return False
        if self._before:
            await self._before()
        await self._execution.models.check_ready()
        if self._complaint:
            logger.info("jobs are taken again")
            self._complaint = ""
        return True

    async def _take(self) -> None:
        """Take a job and run it, unless another worker was faster."""
        async with AsyncExitStack() as held:
            self._claiming += 1
            try:
                await held.enter_async_context(self._place())
                if self._stopping.is_set():
                    return
                lease = await leases.claim(self._database, self.id, self._settings.lease, self._settings.job_attempts)
            finally:
                self._claiming -= 1
            if lease is not None:
                await self._attempt(lease)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._admission is None:
            yield
            return
        async with self._admission.slot():
            yield

    async def _attempt(self, lease: Lease) -> None:
        attempt = Attempt(self._database, self._execution, lease, self._report, self._retry_pause)
        self._attempts[lease.row.id] = attempt
        attempt.check()  # the job may have been cancelled since it was claimed, when there was nobody to tell
        token = request_id.set(lease.job.request_id)
        if self._give_back:
            attempt.give_back()
        job = lease.job
        try:
            if job.attempt == 1:  # a later attempt may have waited for its pause
                with span("queue", parent=job.traceparent, start=job.created_at, job=str(job.id)):
                    pass
            with span(
                "attempt",
                kind="consumer",
                parent=job.traceparent,
                job=str(job.id),
                attempt=job.attempt,
                request_id=job.request_id,
            ) as current:
                current.set(outcome=await attempt.run())
        finally:
            request_id.reset(token)
            if self._attempts.get(lease.row.id) is attempt:  # this worker may have taken its own lost job again
                del self._attempts[lease.row.id]

    def _give_all_back(self) -> None:
        self._give_back = True
        for attempt in self._attempts.values():
            attempt.give_back()

    def _complain(self, error: Unavailable) -> None:
        """Log once why no jobs are taken."""
        if str(error) != self._complaint:
            self._complaint = str(error)
            logger.warning("no jobs are taken: %s", error)

    def _on_notification(self, payload: str) -> None:
        with suppress(ValueError, AttributeError, TypeError):  # of another program
            event = json.loads(payload)
            if event.get("type") == "cancellation_event":
                for number in event["ids"]:
                    if attempt := self._attempts.get(number):
                        attempt.lose()
            elif event.get("operation") == "insert":
                self._wake.set()

    def _on_connected(self) -> None:
        """Catch up on what may have been notified meanwhile."""
        self._wake.set()
        for attempt in self._attempts.values():
            attempt.check()
