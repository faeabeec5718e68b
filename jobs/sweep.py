"""The sweep: remove what is over its time, and what a killed process left.

The tables say what is over its time, and the sweep follows them. What they do not know is found by comparing the store
with them, which takes a listing of the store and is done rarely; a file counts as left only when it is older than a
grace, because a new one may belong to a job that is being submitted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from avatar.errors import Unavailable

from .database import Database
from .records import Job, JobState
from .repository import retention
from .repository.running import release_everywhere
from .settings import ServiceSettings
from .store import Blob, Store

logger = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
COMPARE_EVERY = timedelta(hours=1)
GRACE = timedelta(hours=1)
_BATCH = 500  # files that are compared at the same time


@dataclass(frozen=True)
class Swept:
    """What a sweep has removed: results and records over their time, kept faces, and files that nobody needs."""

    results: int = 0
    records: int = 0
    avatars: int = 0
    files: int = 0


async def sweep_forever(database: Database, store: Store, settings: ServiceSettings) -> None:
    """Sweep every minute until cancelled. A database or a store that is away is tried again."""
    complaint = ""
    while True:
        try:
            await sweep(database, store, settings)
            complaint = ""
        except Unavailable as error:
            if str(error) != complaint:
                logger.warning("the sweep has to wait: %s", error)
            complaint = str(error)
        except Exception:
            logger.exception("the sweep failed; it is tried again")
        await asyncio.sleep(EVERY_SECONDS)


async def sweep(
    database: Database, store: Store, settings: ServiceSettings, grace: timedelta = GRACE, compare: bool = False
) -> Swept | None:
    """Sweep once; return None if another process does.

    Args:
        grace: the age from which a file that no job needs is removed.
        compare: compare the store with the tables now; otherwise only if that was not done for an hour.

    Raises:
        Unavailable: the database or the store fails; what was done is done.
    """
    async with retention.only_sweep(database) as alone:
        if not alone:
            return None
        results = await _remove_results(database, store)
        await _remove_inputs(database, store)
        records = await _remove_records(database, store, timedelta(hours=settings.job_retention))
        avatars = await retention.forget_unused_avatars(database, timedelta(hours=settings.avatar_retention))
        await store.delete(avatars)
        await retention.forget_keys_and_log(database)
        await release_everywhere(database)
        files = 0
        if await retention.take_turn_to_compare(database, timedelta(0) if compare else COMPARE_EVERY):
            files = await _remove_orphans(database, store, grace)
        swept = Swept(results, records, len(avatars), files)
    if swept != Swept():
        logger.info("swept: %s", swept)
    return swept


async def _remove_results(database: Database, store: Store) -> int:
    """Expire jobs, then remove their results: a job never promises a file that is not there."""
    while await retention.expire(database) == retention.BATCH:
        pass
    removed = 0
    while jobs := await retention.expired_with_results(database):
        await store.delete([job.result.file.key for job in jobs if job.result])
        await retention.results_removed(database, [job.id for job in jobs])
        removed += len(jobs)
    return removed


async def _remove_inputs(database: Database, store: Store) -> None:
    """Remove the inputs of jobs that have ended and whose worker could not do it."""
    while jobs := await retention.ended_with_inputs(database):
        await store.delete([file.key for job in jobs for file in job.inputs.values()])
        await retention.inputs_removed(database, [job.id for job in jobs])


async def _remove_records(database: Database, store: Store, age: timedelta) -> int:
    removed = 0
    while jobs := await retention.outlived(database, age):
        await store.delete([job.result.file.key for job in jobs if job.result])
        await retention.forget(database, [job.id for job in jobs])
        removed += len(jobs)
    return removed


async def _remove_orphans(database: Database, store: Store, grace: timedelta) -> int:
    """Remove the files that are older than the grace and that no record needs."""
    before = datetime.now(UTC) - grace
    removed = 0
    for prefix, check in (("inputs/", _needed_input), ("results/", _needed_result)):
        async for blobs in _old(store, prefix, before):
            jobs = await retention.jobs_by_id(database, set(blobs.values()))
            left = [key for key, owner in blobs.items() if not _is_needed(check, jobs.get(owner), key)]
            await store.delete(left)
            removed += len(left)
    async for blobs in _old(store, "avatars/", before):
        known = await retention.avatars_by_id(database, set(blobs.values()))
        left = [key for key, owner in blobs.items() if owner not in known]
        await store.delete(left)
        removed += len(left)
    return removed + await store.remove_partial(grace.total_seconds())


def _is_needed(check: Callable[[Job, str], bool], job: Job | None, key: str) -> bool:
    return job is not None and check(job, key)


def _needed_input(job: Job, key: str) -> bool:
    return not job.state.is_final and any(file.key == key for file in job.inputs.values())


def _needed_result(job: Job, key: str) -> bool:
    if job.state is JobState.SUCCEEDED:
        return job.result is not None and job.result.file.key == key
    attempt = key.rpartition("/")[2].partition(".")[0]
    return job.state is JobState.RUNNING and attempt == str(job.attempt)


async def _old(store: Store, prefix: str, before: datetime) -> AsyncIterator[Mapping[str, UUID]]:
    """Yield batches of files below a prefix that are older: the id in each key, by its key. Others are not ours."""
    batch: dict[str, UUID] = {}
    async for blob in store.list(prefix):
        owner = _owner(blob)
        if owner is not None and blob.modified < before:
            batch[blob.key] = owner
        if len(batch) == _BATCH:
            yield batch
            batch = {}
    if batch:
        yield batch


def _owner(blob: Blob) -> UUID | None:
    try:
        return UUID(blob.key.split("/")[1])
    except (IndexError, ValueError):
        return None
