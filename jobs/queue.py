"""PgQueuer on a connection of ours, so that its rows change in our transactions."""

from __future__ import annotations

import functools
from typing import cast

from pgqueuer.adapters.drivers.psycopg import PsycopgDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.settings import DBSettings
from psycopg import AsyncConnection

from .database import SCHEMA, Connection

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
