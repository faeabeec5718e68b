"""The schema of the database: PgQueuer's part, and ours in numbered steps that are applied once and never changed."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from importlib.resources import files

import psycopg

from .database import SCHEMA, Connection, Database, session_lock
from .queue import queue_on

logger = logging.getLogger(__name__)

_LOCK = 0x6176_6174_6172  # of all migrations of this service; any number that no other program uses
_TABLE = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class SchemaMismatch(Exception):
    """The database is not one that this version of the service can use; the message says what to do."""


@dataclass(frozen=True)
class Migration:
    """One step: `0001_jobs.sql` has the number 1."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Return the hash that tells whether an applied step was changed afterwards."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Return all steps in order."""
    found = []
    for file in files(__package__).joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_\w+\.sql", file.name):
            found.append(Migration(int(match[1]), file.name, file.read_text()))
    return sorted(found, key=lambda each: each.number)


async def migrate(database: Database) -> list[str]:
    """Bring the schema up to date, once for all processes that start at the same time; return the applied steps.

    Raises:
        SchemaMismatch: a newer version of the service has used the database, or an applied step is another one now.
        DatabaseUnavailable: the server does not answer.
    """
    async with database.connection() as connection:
        await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        async with session_lock(connection, _LOCK):
            await connection.execute(_TABLE.encode())
            applied = await _applied(connection)
            _compare(applied)
            queue = queue_on(connection)
            if await queue.schema_is_installed():
                await queue.apply_upgrade()
            else:
                await queue.install()
            return [await _apply(connection, each) for each in migrations() if each.number not in applied]


async def check(database: Database) -> None:
    """Return if the schema is that of this version. Raises SchemaMismatch, DatabaseUnavailable."""
    async with database.connection() as connection:
        try:
            applied = await _applied(connection)
        except psycopg.errors.UndefinedTable:
            raise SchemaMismatch("the database has no tables yet; run: python -m jobs migrate") from None
    _compare(applied)
    missing = [each.name for each in migrations() if each.number not in applied]
    if missing:
        raise SchemaMismatch(f"the database lacks {', '.join(missing)}; run: python -m jobs migrate")


async def _applied(connection: Connection) -> dict[int, str]:
    rows = await (await connection.execute("SELECT number, sha256 FROM migrations ORDER BY number")).fetchall()
    return {row["number"]: row["sha256"] for row in rows}


def _compare(applied: dict[int, str]) -> None:
    known = {each.number: each for each in migrations()}
    for number, digest in applied.items():
        if number not in known:
            raise SchemaMismatch(
                f"a newer version of the service has changed the database (step {number}); update this one"
            )
        if known[number].sha256 != digest:
            raise SchemaMismatch(f"{known[number].name} was applied to the database with other content")


async def _apply(connection: Connection, migration: Migration) -> str:
    async with connection.transaction():
        await connection.execute(migration.sql.encode())
        await connection.execute(
            "INSERT INTO migrations (number, name, sha256) VALUES (%s, %s, %s)",
            (migration.number, migration.name, migration.sha256),
        )
    logger.info("applied %s to the database", migration.name)
    return migration.name
