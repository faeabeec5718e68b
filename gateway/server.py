"""uvicorn with an orderly shutdown.

First the gateway is not ready any more, but accepts requests (`AVATAR_DRAIN_SECONDS`). Then queued requests are
rejected, and running jobs get a grace period.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvicorn
from fastapi import FastAPI

from avatar.load import wait_for

from .app import create_app
from .clients import is_proxy
from .connection import Connection
from .connection_pool import BACKLOG, ConnectionLimits, ConnectionPool
from .metrics import Metrics
from .service import Service
from .settings import Settings
from .socket_connection import MESSAGE_BYTES, PING_SECONDS

logger = logging.getLogger("gateway")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
FORCED_EXIT_SECONDS = 1.0  # seconds to send responses after a second signal
RESPONSE_SECONDS = 5.0  # seconds to send the last responses after the grace period, before connections are closed


class Server(uvicorn.Server):
    """Stops gracefully at the first signal, and at once at the second; the exit status is 0 in both cases."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=cast("type[asyncio.Protocol]", partial(Connection, pool=_pool(app, settings))),
                ws="none",  # the connection itself upgrades the one path that has a WebSocket
                ws_max_size=MESSAGE_BYTES,
                ws_ping_interval=PING_SECONDS,
                ws_ping_timeout=PING_SECONDS,
                ws_per_message_deflate=False,  # JPEG and speech do not shrink, and a few bytes could become gigabytes
                loop="asyncio",  # uvloop, which PgQueuer installs, has other transports than gateway.connection knows
                proxy_headers=False,  # else uvicorn believes X-Forwarded-For from this machine: see gateway.clients
                backlog=BACKLOG,
                timeout_keep_alive=settings.keep_alive_timeout,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=round(settings.shutdown_grace + RESPONSE_SECONDS),
            )
        )
        self._app = app
        self._grace = settings.shutdown_grace
        self._drain_seconds = settings.drain_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as uvicorn does, but do not raise them again afterwards: that would change the exit status."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then log its address."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for balancers, reject new and queued jobs, cancel running ones after the grace period, then stop."""
        service: Service = self._app.state.service
        await self._drain(service)
        logger.info("stopping; %d running jobs have %g s to finish", service.jobs.running, self._grace)
        service.jobs.close(self._grace)
        if service.v1:
            service.v1.close(self._grace)
        await service.live.close()  # first: uvicorn would cut their connections off
        await super().shutdown(sockets)
        logger.info("stopped")

    async def _drain(self, service: Service) -> None:
        """Serve on while `/health/ready` is negative; a second signal ends the wait."""
        service.jobs.drain()
        if self._drain_seconds:
            logger.info("not ready any more; requests are accepted for another %g s", self._drain_seconds)
            await wait_for(service.jobs.stopped, self._drain_seconds)

    def _on_signal(self) -> None:
        if self.should_exit and self.started:
            logger.info("second signal: running jobs are cancelled")
            service: Service = self._app.state.service
            service.jobs.stopped.set()
            if service.v1:
                service.v1.close(0)
            asyncio.get_running_loop().call_later(FORCED_EXIT_SECONDS, self._force_exit)
        self.should_exit = True

    def _force_exit(self) -> None:
        self.force_exit = True


def _pool(app: FastAPI, settings: Settings) -> ConnectionPool:
    metrics: Metrics = app.state.metrics
    limits = ConnectionLimits(
        most=settings.max_connections,
        most_per_client=settings.max_connections // 2,
        head_seconds=settings.header_timeout,
        send_seconds=settings.upload_timeout,
        min_rate=settings.transfer_min_rate,
    )
    pool = ConnectionPool(limits, partial(is_proxy, trusted=settings.trusted_proxies), metrics.count_closed_connection)
    metrics.watch_connections(lambda: pool.open)
    return pool


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 picks a free port. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until a signal arrives. Raises SystemExit if the application does not start."""
    server = Server(create_app(settings), settings)
    gc.collect()
    gc.freeze()  # all this lives as long as the process; a full collection that visits it stops live sessions for 50 ms
    server.run(sockets=[listener])
