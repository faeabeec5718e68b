"""uvicorn, with an end of our own: those who wait are sent away, those who work get a grace period."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from gateway.app import create_app
from gateway.service import Service
from gateway.settings import Settings

logger = logging.getLogger("gateway")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HURRIED = 1.0  # seconds in which answers leave after a second signal
_LATE = 5.0  # seconds after the grace period in which the last answers leave, before connections are cut


class Server(uvicorn.Server):
    """A server that a first signal stops gently, a second one at once; both are an orderly end (exit status 0)."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=round(settings.shutdown_grace + _LATE),
            )
        )
        self._app = app
        self._grace = settings.shutdown_grace

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, without raising the signal again afterwards, which would end in another exit status."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then say where it is reached."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the jobs first: nobody new, nobody who waits, and after the grace period nobody at all."""
        service: Service = self._app.state.service
        logger.info("stopping; %d running jobs get %g s", service.jobs.running, self._grace)
        service.jobs.close(self._grace)
        await super().shutdown(sockets)
        logger.info("stopped")

    def _signalled(self) -> None:
        if self.should_exit and self.started:
            logger.info("signalled again: running jobs end now")
            service: Service = self._app.state.service
            service.jobs.stopped.set()
            asyncio.get_running_loop().call_later(_HURRIED, self._cut)
        self.should_exit = True

    def _cut(self) -> None:
        self.force_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until a signal comes. Raises SystemExit where the application does not start."""
    Server(create_app(settings), settings).run(sockets=[listener])
