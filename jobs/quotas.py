"""Limits per API key: queued and running jobs, uploads per minute, bytes in the store."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg.rows import DictRow

from avatar.errors import Unavailable
from avatar.resources.held import Held
from avatar.settings import MIB

from .database import Connection, Database
from .keys import KeyLimits

_MINUTE = 60.0
_SOON = 5  # seconds until a place in the queue, or among the running jobs, may be free
_LATER = 60  # seconds until files may have been removed
_RAISE = "ask the operator to raise the limit of this API key"


class QuotaExceeded(Unavailable):
    """The owner of an API key has as much as it may have.

    Attributes:
        code: which limit was reached, for programs.
    """

    status = 429

    def __init__(self, code: str, message: str, retry_after: int) -> None:
        super().__init__(message, retry_after)
        self.code = code


def too_many_running(limit: int) -> QuotaExceeded:
    """Return the error of an owner that has as many running jobs, or forms, as it may have."""
    return QuotaExceeded(
        "too_many_running",
        f"limit of {limit} running jobs or forms per API key reached; wait until one of them ends",
        _SOON,
    )


def too_many_uploads(limit: int, retry_after: float) -> QuotaExceeded:
    """Return the error of an owner that has sent as much as it may send in a minute."""
    return QuotaExceeded(
        "too_many_uploads",
        f"limit of {limit} uploads per minute and API key reached; try again later",
        max(1, math.ceil(retry_after)),
    )


def _too_many_queued(limit: int) -> QuotaExceeded:
    return QuotaExceeded(
        "too_many_queued",
        f"limit of {limit} queued jobs per API key reached; wait until one of them has started",
        _SOON,
    )


def _too_much_stored(limit: int) -> QuotaExceeded:
    return QuotaExceeded(
        "too_much_stored",
        f"limit of {limit / MIB:g} MiB of stored files per API key reached; remove jobs or kept faces, or {_RAISE}",
        _LATER,
    )


class UploadRates:
    """Counts the uploads of the last minute, of each owner, in this process.

    The database counts the jobs of all processes (`check_quotas`); this counts forms and kept faces too, and rejects
    before the body is read.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}

    def add(self, tenant: str, limit: int) -> None:
        """Count an upload. Raises QuotaExceeded, and counts nothing, if there were `limit` in the last minute."""
        now = self._clock()
        times = self._times.setdefault(tenant, deque())
        while times and times[0] <= now - _MINUTE:
            times.popleft()
        if len(times) >= limit:
            raise too_many_uploads(limit, times[-limit] + _MINUTE - now)
        times.append(now)


class RunningForms:
    """Counts the forms under way of each owner, in this process."""

    def __init__(self) -> None:
        self._held = Held()

    @contextmanager
    def hold(self, tenant: str, limits: KeyLimits | None) -> Iterator[None]:
        """Count a form within the block. Raises QuotaExceeded."""
        if limits is not None and self._held.by(tenant) >= limits.running:
            raise too_many_running(limits.running)
        with self._held.hold(tenant):
            yield


async def check_quotas(database: Database, tenant: str, limits: KeyLimits | None, new_bytes: int = 0) -> None:
    """Return if the owner may submit a job now, with inputs of `new_bytes`.

    For a rejection before the body is read: `repository.submit` checks again, in its transaction.

    Raises:
        QuotaExceeded: a limit is reached.
        DatabaseUnavailable: the database does not answer.
    """
    if limits is not None:
        async with database.connection() as connection:
            await _check(connection, tenant, limits, new_bytes)


async def check_stored(database: Database, tenant: str, limits: KeyLimits | None, new_bytes: int) -> None:
    """Return if the owner may store `new_bytes` more. Raises QuotaExceeded, DatabaseUnavailable."""
    if limits is not None:
        async with database.connection() as connection:
            if (await _usage(connection, tenant))["stored"] + new_bytes > limits.stored_bytes:
                raise _too_much_stored(limits.stored_bytes)


async def check_in_transaction(connection: Connection, tenant: str, limits: KeyLimits, new_bytes: int) -> None:
    """Check within the transaction that adds the job; others of the same owner wait until it ends.

    The lock is of the owner, not of one of its flows: the limits are of both priorities together. Raises QuotaExceeded.
    """
    lock = "SELECT pg_advisory_xact_lock(hashtextextended('quota' || E'\\n' || %s, 0))"
    await connection.execute(lock.encode(), (tenant,))
    await _check(connection, tenant, limits, new_bytes)


async def _check(connection: Connection, tenant: str, limits: KeyLimits, new_bytes: int) -> None:
    usage = await _usage(connection, tenant)
    if usage["recent"] >= limits.uploads_per_minute:
        raise too_many_uploads(limits.uploads_per_minute, _MINUTE / 4)
    if usage["queued"] >= limits.queued:
        raise _too_many_queued(limits.queued)
    if usage["running"] >= limits.running:
        raise too_many_running(limits.running)
    if usage["stored"] + new_bytes > limits.stored_bytes:
        raise _too_much_stored(limits.stored_bytes)


async def _usage(connection: Connection, tenant: str) -> DictRow:
    """Return what the owner has. Inputs count while the job needs them, results until they are removed."""
    rows = await connection.execute(
        """
        SELECT active.queued, active.running, recent.jobs AS recent,
               (active.bytes + results.bytes + faces.bytes)::bigint AS stored
        FROM (SELECT count(*) FILTER (WHERE state = 'queued') AS queued,
                     count(*) FILTER (WHERE state = 'running') AS running,
                     coalesce(sum(input_bytes), 0) AS bytes
              FROM jobs WHERE tenant = %(tenant)s AND state IN ('queued', 'running')) AS active,
             (SELECT coalesce(sum(result_bytes), 0) AS bytes
              FROM jobs WHERE tenant = %(tenant)s AND state = 'succeeded') AS results,
             (SELECT coalesce(sum(file_bytes), 0) AS bytes FROM avatars WHERE tenant = %(tenant)s) AS faces,
             (SELECT count(*) AS jobs
              FROM jobs WHERE tenant = %(tenant)s AND created_at > now() - interval '1 minute') AS recent
        """,
        {"tenant": tenant},
    )
    row = await rows.fetchone()
    assert row is not None  # noqa: S101 - aggregates have one row
    return row
