"""A PostgreSQL for the tests: one server per test process, and a database of its own for each test.

With AVATAR_TEST_POSTGRES_BIN=DIR the programs in DIR are used, such as /usr/lib/postgresql/15/bin, and not the wheel's.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedded.postgres import Postgres

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder in it is as private as one in /tmp
NEEDED = 2 << 30  # bytes; a cluster has a fifth of it at most


@contextmanager
def temporary_server() -> Iterator[Postgres]:
    """Run a server with an empty cluster, which is removed afterwards. It is fast and does not survive a power cut."""
    with temporary_folder() as folder, Postgres(folder / "data", **server_options(folder)) as server:
        yield server


def server_options(folder: Path) -> dict[str, Any]:
    """Return the arguments of the tests' servers: fast, and with a log in this folder."""
    programs = os.environ.get("AVATAR_TEST_POSTGRES_BIN")
    return {"programs": Path(programs) if programs else None, "log": folder / "log", "fsync": False}


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder that every user can reach.

    Those of pytest are closed to the user that PostgreSQL runs as when the tests run as root. It is in memory where
    there is room: a thousand small files for each database take a disk longer than the tests.
    """
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > NEEDED and os.access(MEMORY, os.W_OK)
    folder = Path(tempfile.mkdtemp(prefix="avatar-test-postgres-", dir=MEMORY if in_memory else None))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(server: Postgres, template: str = "template1") -> Iterator[str]:
    """Yield the URL of a new database, a copy of `template`; at the end it is dropped, whoever is connected to it."""
    name = f"test_{secrets.token_hex(8)}"
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield server.url_of(name)
    finally:
        _execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _execute(server: Postgres, statement: str) -> None:
    import psycopg  # tests that use no database do not wait for it

    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(statement.encode())


@pytest.fixture
def database_folder() -> Iterator[Path]:
    """A folder for the data of a server that a test starts itself."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL for the tests of this process."""
    with temporary_server() as server:
        yield server
        server.wait(0.1)  # raises DatabaseEnded if it has died during the tests


@pytest.fixture
def empty_database(postgres_server: Postgres) -> Iterator[str]:
    """The URL of a new database without tables."""
    with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_database(postgres_server: Postgres) -> str:
    """The name of a database with the tables of `jobs`, of which the tests use copies: a copy takes 50 ms."""
    _execute(postgres_server, "CREATE DATABASE migrated")
    asyncio.run(_migrate(postgres_server.url_of("migrated")))
    return "migrated"


async def _migrate(url: str) -> None:
    from jobs.database import Database
    from jobs.migrate import migrate

    async with Database(url) as database:
        await migrate(database)


@pytest.fixture
def database_url(postgres_server: Postgres, migrated_database: str) -> Iterator[str]:
    """The URL of a new database with the tables of `jobs`."""
    with fresh_database(postgres_server, migrated_database) as url:
        yield url
