"""Totals that only grow, for the metrics, and the state of the queue at this moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ..database import Connection, Database
from ..records import JobClass, JobState


class Total(StrEnum):
    """What is counted: starts of jobs, workers that lost a job, requests of webhooks that failed."""

    ATTEMPTS = "attempts"
    LEASE_LOSSES = "lease_losses"
    WEBHOOK_FAILURES = "webhook_failures"


@dataclass(frozen=True)
class QueueState:
    """The queue at one moment.

    Attributes:
        jobs: numbers of queued and running jobs, by state and class; those that are missing are 0.
        oldest: seconds since the oldest queued job was submitted, by class; 0 without one.
        totals: of all time.
    """

    jobs: Mapping[tuple[JobState, JobClass], int]
    oldest: Mapping[JobClass, float]
    totals: Mapping[Total, int]


async def count(connection: Connection, total: Total) -> None:
    """Add 1 to a total, in the transaction of what is counted. Call it late: the row stays locked until the end."""
    query = f"UPDATE totals SET {total} = {total} + 1"  # noqa: S608 - one of three constants
    await connection.execute(query.encode())


async def queue_state(database: Database) -> QueueState:
    """Read the queue and the totals. Raises DatabaseUnavailable."""
    rows = await database.fetch(
        """
        SELECT state, class, count(*) AS jobs,
               coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest
        FROM jobs WHERE state = 'queued' GROUP BY state, class
        UNION ALL SELECT state, class, count(*), 0 FROM jobs WHERE state = 'running' GROUP BY state, class
        """
    )
    (totals,) = await database.fetch("SELECT * FROM totals")
    queued = {JobClass(row["class"]): row["oldest"] for row in rows if row["state"] == JobState.QUEUED}
    return QueueState(
        jobs={(JobState(row["state"]), JobClass(row["class"])): row["jobs"] for row in rows},
        oldest={each: max(0.0, queued.get(each, 0.0)) for each in JobClass},
        totals={each: totals[each] for each in Total},
    )
