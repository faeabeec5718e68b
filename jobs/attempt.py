"""One attempt of a worker at one job: run it, keep the lease, and settle how it ended.

The record of the job decides. Until it is settled, the attempt keeps its lease and repeats what the database did not
answer; when the lease is lost, the work is cancelled at once, and what it made does not count.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from enum import Enum

from avatar.errors import ClientError, MachineFault, Unavailable
from avatar.load import wait_for

from .background import background
from .database import Database
from .errors import DatabaseUnavailable, LeaseLost
from .execution import Execution, error_of, unavailable_of
from .progress import ProgressPublisher
from .records import Job, JobError, JobResult, JobState
from .reports import Outcome, WorkerReport
from .repository import leases, work
from .repository.leases import Lease

logger = logging.getLogger(__name__)

HEARTBEATS = 4  # per lease
RETRY_SECONDS = 1.0  # between two tries of a write while the database is away
SETTLE_SECONDS = 300.0  # for which the end of a job is tried
STOPPED_SETTLE_SECONDS = 5.0  # the same for a worker that is being stopped
MAX_PAUSE = timedelta(minutes=10)


class _Stop(Enum):
    """Why an attempt was stopped before its end."""

    LOST = "lost"  # the job was canceled, or another worker has it
    GIVE_BACK = "give back"  # this worker is being stopped


class Attempt:
    """One attempt. `run` returns when the job needs this worker no more.

    Args:
        retry_pause: seconds before the next attempt after a fault of the machine; it grows threefold with each.
    """

    def __init__(
        self, database: Database, execution: Execution, lease: Lease, report: WorkerReport, retry_pause: float
    ) -> None:
        self._database, self._execution, self._lease, self._report = database, execution, lease, report
        self._retry_pause = retry_pause
        self._progress = ProgressPublisher(database, lease.job.id)
        self._task: asyncio.Task[JobResult] | None = None
        self._stopped: _Stop | None = None
        self._hurry = asyncio.Event()
        self._patience: asyncio.Timeout | None = None  # of `_settle`
        self._writing = asyncio.Lock()  # the lease is not extended while the end is written
        self._settled = False

    @property
    def _job(self) -> Job:
        return self._lease.job

    def check(self) -> None:
        """Ask the database at once whether the lease is still this attempt's."""
        self._hurry.set()

    def lose(self) -> None:
        """Stop the work: the job is not this worker's any more."""
        self._stop(_Stop.LOST)

    def give_back(self) -> None:
        """Stop the work, and put the job back into the queue."""
        self._stop(_Stop.GIVE_BACK)

    async def run(self) -> Outcome:
        """Do the job as far as this worker can, settle it, and return how it ended."""
        start = time.monotonic()
        self._report.started(self._job, self._lease.took_over)
        logger.info("job %s: attempt %d", self._job.id, self._job.attempt)
        async with background(self._keep()), self._progress.publishing():
            outcome = await self._work()
        seconds = time.monotonic() - start
        logger.info("job %s: %s after %.1f s", self._job.id, outcome.replace("_", " "), seconds)
        self._report.ended(self._job, outcome, seconds)
        return outcome

    async def _work(self) -> Outcome:
        self._task = asyncio.create_task(self._execution.run(self._job, self._progress.report))
        if self._stopped:
            self._task.cancel()
        await asyncio.wait((self._task,))
        if self._task.cancelled():
            return await (self._lost() if self._stopped is _Stop.LOST else self._give_back(timedelta(0), counts=False))
        error = self._task.exception()
        if error is None:
            return await self._succeed(self._task.result())
        return await self._end_with(error)

    async def _succeed(self, result: JobResult) -> Outcome:
        lifetime = timedelta(hours=self._execution.settings.result_ttl)
        settled = await self._settle(lambda: leases.succeed(self._database, self._lease, result, lifetime))
        if settled is False:  # the transaction may have been committed without an answer, before it was repeated
            settled = await self._is_accepted(result)
        if settled:
            await self._remove_inputs()
            self._report.rendered(result)
            return "succeeded"
        if settled is None:  # the record may name the result: only the sweep can tell
            return "lost"
        await self._remove([result.file.key])
        return await self._lost()

    async def _is_accepted(self, result: JobResult) -> bool | None:
        """Return whether the record has this result; None if the database does not answer."""
        with suppress(DatabaseUnavailable):
            job = await work.find(self._database, self._job.id)
            return job is not None and job.result is not None and job.result.file.key == result.file.key
        return None

    async def _end_with(self, error: BaseException) -> Outcome:
        unavailable = None if isinstance(error, ClientError) else unavailable_of(error)
        failures = self._job.attempt - self._job.given_back
        if unavailable is not None and failures < self._execution.settings.job_attempts:
            _log_fault(self._job, unavailable)
            pause = timedelta(seconds=self._retry_pause * 3 ** (failures - 1))
            return await self._give_back(min(pause, MAX_PAUSE), counts=True)
        failure = error_of(error)
        if isinstance(error, ClientError) or unavailable is not None:
            logger.info("job %s: failed with %s: %s", self._job.id, failure.code, failure.detail)
        else:
            logger.error("job %s: internal error", self._job.id, exc_info=error)
        return await self._fail(failure)

    async def _fail(self, failure: JobError) -> Outcome:
        settled = await self._settle(lambda: leases.fail(self._database, self._lease, failure))
        if settled is None:
            return "lost"
        if not settled:
            return await self._lost()
        await self._remove_inputs()
        return "failed"

    async def _give_back(self, pause: timedelta, *, counts: bool) -> Outcome:
        settled = await self._settle(lambda: leases.give_back(self._database, self._lease, pause, counts=counts))
        if settled is None:
            return "lost"
        return "given_back" if settled else await self._lost()

    async def _lost(self) -> Outcome:
        """Find out what became of the job; remove the inputs if it has ended."""
        try:
            job = await work.find(self._database, self._job.id)
        except DatabaseUnavailable:
            return "lost"
        if job is None or job.state.is_final:
            await self._remove_inputs()
        return "canceled" if job is None or job.state is JobState.CANCELED else "lost"

    async def _settle(self, end: Callable[[], Awaitable[object]]) -> bool | None:
        """Write the end; return whether the job was this attempt's, or None if the database did not answer in time."""
        seconds = STOPPED_SETTLE_SECONDS if self._stopped is _Stop.GIVE_BACK else SETTLE_SECONDS
        try:
            async with asyncio.timeout(seconds) as self._patience:
                return await self._write_end(end)
        except TimeoutError:
            logger.error("job %s: the database did not answer in time; its lease expires", self._job.id)
            return None
        finally:
            self._patience = None

    async def _write_end(self, end: Callable[[], Awaitable[object]]) -> bool:
        while True:
            async with self._writing:
                try:
                    await end()
                except DatabaseUnavailable:
                    pass
                except LeaseLost:
                    self._settled = True
                    return False
                else:
                    self._settled = True
                    return True
            await asyncio.sleep(RETRY_SECONDS)

    async def _keep(self) -> None:
        """Extend the lease until the end is written; stop the work if the lease is lost."""
        every = self._execution.settings.job_lease / HEARTBEATS
        pause = every
        while True:
            await wait_for(self._hurry, pause)
            self._hurry.clear()
            async with self._writing:
                if self._settled:
                    return
                try:
                    await leases.keep(self._database, self._lease, self._progress.latest)
                    pause = every
                except DatabaseUnavailable:
                    pause = min(every, RETRY_SECONDS)
                except LeaseLost:
                    self.lose()
                    return

    def _stop(self, reason: _Stop) -> None:
        if self._stopped is not _Stop.LOST:  # after that there is nothing to give back
            self._stopped = reason
        if reason is _Stop.GIVE_BACK and self._patience is not None:
            soon = asyncio.get_running_loop().time() + STOPPED_SETTLE_SECONDS
            self._patience.reschedule(min(soon, self._patience.when() or soon))
        if self._task is not None:
            self._task.cancel()

    async def _remove_inputs(self) -> None:
        await self._remove([file.key for file in self._job.inputs.values()])
        with suppress(DatabaseUnavailable):  # then the sweep does it
            await work.inputs_removed(self._database, self._job.id)

    async def _remove(self, keys: list[str]) -> None:
        try:
            await self._execution.store.delete(keys)
        except Unavailable as fault:
            logger.warning("job %s: files are left to the sweep: %s", self._job.id, fault)


def _log_fault(job: Job, fault: Unavailable) -> None:
    if isinstance(fault, MachineFault):
        logger.error("job %s: fault of this machine: %s (%s)", job.id, fault.reason, fault.__cause__ or "no cause")
    else:
        logger.warning("job %s: unavailable: %s", job.id, fault)
