"""PgQueuer on a connection of ours, so that its rows change in our transactions."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import cast
from uuid import UUID

from pgqueuer.adapters.drivers.psycopg import PsycopgDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.models import Job as QueueRow
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import QueueEntrypoint, QueueManagerId
from pgqueuer.ports.repository import EntrypointExecutionParameter
from psycopg import AsyncConnection

from .database import SCHEMA, Connection

__all__ = ["RENDER", "WEBHOOK", "QueueRow", "channel", "dequeue", "queue_on"]

RENDER = "render"  # the entrypoint of jobs
WEBHOOK = "webhook"  # the entrypoint of webhook deliveries


@functools.cache
def _settings() -> DBSettings:
    return DBSettings(db_schema=SCHEMA)


def channel() -> str:
    """Return the channel on which PgQueuer says that rows were added or canceled."""
    return str(_settings().channel)


@functools.cache
def _builders() -> tuple[QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder]:
    settings = _settings()
    return QueryBuilderEnvironment(settings), QueryQueueBuilder(settings), QuerySchedulerBuilder(settings)


def queue_on(connection: Connection) -> Queries:
    """Return PgQueuer's statements on a connection that is in autocommit mode, or in a transaction of ours."""
    driver = PsycopgDriver(cast(AsyncConnection, connection))
    return Queries(driver, *_builders())


async def dequeue(connection: Connection, entrypoint: str, worker: UUID, lease: timedelta) -> QueueRow | None:
    """Take the next row of an entrypoint, or one whose worker has not been heard of for `lease`; None if there is none.

    The row is locked until the transaction ends.
    """
    limits = {QueueEntrypoint(entrypoint): EntrypointExecutionParameter(concurrency_limit=0)}
    rows = await queue_on(connection).dequeue(1, limits, QueueManagerId(worker), None, lease)
    return rows[0] if rows else None
