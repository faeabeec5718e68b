"""The connections to PostgreSQL: a pool for statements, and one connection that listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeAlias

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from .errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

Connection: TypeAlias = AsyncConnection[DictRow]
Listener: TypeAlias = Callable[[str], None]

SCHEMA = "avatar"  # of all our tables, and of PgQueuer's
CONNECT_SECONDS = 5.0  # to open a connection, or to get one from the pool
RETRY_SECONDS = 1.0  # between two attempts to listen again
STATEMENT_SECONDS = 30
ANSWER_SECONDS = 45.0  # for a statement or a transaction: a server that hangs does not end its statements itself
CLOSE_SECONDS = 2.0  # for each part of the end, if the server is away
UNAVAILABLE = "the database does not answer; try again later"
_OPTIONS = f"-c search_path={SCHEMA} -c statement_timeout={STATEMENT_SECONDS}s"


class Database:
    """A pool of connections. It opens without a server, too: then the calls raise until there is one.

    Args:
        url: of PostgreSQL 15 or later, such as `postgresql://user@host/name`.
        size: most connections, besides the one that listens.
    """

    def __init__(self, url: str, size: int = 8) -> None:
        self._url = url
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=AsyncConnection[DictRow],
            kwargs=_connection_arguments(),
            min_size=0,
            max_size=size,
            timeout=CONNECT_SECONDS,
            reconnect_timeout=CONNECT_SECONDS,
            check=AsyncConnectionPool.check_connection,
            open=False,
            name="jobs",
        )
        self._listeners: dict[str, list[Listener]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()  # a channel was added
        self._on_connected: list[Callable[[], None]] = []
        self.connected = asyncio.Event()  # the listening connection is open: no notification is lost while it is

    async def __aenter__(self) -> Database:
        await self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.wait((self._listening,), timeout=CLOSE_SECONDS)
        await self._pool.close(CLOSE_SECONDS)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Yield a connection in autocommit mode. Raises DatabaseUnavailable."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            raise DatabaseUnavailable(UNAVAILABLE) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Yield a connection within a transaction, which an exception rolls back. Raises DatabaseUnavailable."""
        async with _answering(), self.connection() as connection, connection.transaction():
            yield connection

    async def fetch(self, query: str, *values: object) -> list[DictRow]:
        """Return the rows of one statement. Raises DatabaseUnavailable."""
        async with _answering(), self.connection() as connection:
            return await (await connection.execute(query.encode(), values)).fetchall()

    async def check(self) -> None:
        """Return if the server answers. Raises DatabaseUnavailable."""
        await self.fetch("SELECT 1")

    def listen(self, channel: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` with the payload of each notification on a channel; return a function that ends this.

        Notifications are lost while the server is away: whoever needs each of them reads the tables when `connected`
        is set again.
        """
        self._listeners.setdefault(channel, []).append(listener)
        self._changed.set()
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        return lambda: self._listeners[channel].remove(listener)

    def on_connected(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` whenever notifications may have been lost and arrive again; return what ends this."""
        self._on_connected.append(callback)
        return lambda: self._on_connected.remove(callback)

    async def _listen(self) -> None:
        while True:
            try:
                async with await AsyncConnection.connect(self._url, **_connection_arguments()) as connection:
                    await self._dispatch(connection)
            except (psycopg.Error, OSError) as error:
                logger.warning("lost the connection that listens to the database: %s", str(error).strip())
            self.connected.clear()
            await asyncio.sleep(RETRY_SECONDS)

    async def _dispatch(self, connection: Connection) -> None:
        subscribed: set[str] = set()
        while True:
            self._changed.clear()
            added = self._listeners.keys() - subscribed
            for channel in added:
                await connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
                subscribed.add(channel)
            if added:  # what was notified on these channels before is lost
                self.connected.set()
                for callback in tuple(self._on_connected):
                    callback()
            async for notify in connection.notifies(timeout=1.0, stop_after=1):
                for listener in tuple(self._listeners.get(notify.channel, ())):
                    listener(notify.payload)


@asynccontextmanager
async def session_lock(connection: Connection, number: int) -> AsyncIterator[None]:
    """Give back an advisory lock of the session at the end of the block.

    After an error the connection is closed instead, which frees the lock too: a server that hangs does not answer.
    """
    try:
        yield
    except BaseException:
        await connection.close()
        raise
    await connection.execute("SELECT pg_advisory_unlock(%s)", (number,))


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Raise DatabaseUnavailable if the block takes longer than a server needs that works."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DatabaseUnavailable(UNAVAILABLE) from error


def _connection_arguments() -> dict[str, Any]:
    return {
        "autocommit": True,
        "row_factory": dict_row,
        "options": _OPTIONS,
        "connect_timeout": round(CONNECT_SECONDS),
        "application_name": "talking-avatar",
        # a server whose machine is lost is noticed by TCP
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
