"""The servers of a step: Triton, started here or running elsewhere, and a gateway in front of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avatar_client.access import Token
from demo.stack import gateway_server
from embedded.access import TOKEN_VARIABLE
from embedded.ports import find_free
from embedded.server import Triton

from ..comparison.runner import Service
from .settings import Settings
from .transport import Server

START_SECONDS = 240.0  # limit for the start of a server, which compiles and captures kernels while it warms up


@contextmanager
def served(settings: Settings, kind: str, seconds: float = START_SECONDS) -> Iterator[Server]:
    """Yield the server at `--url`, or one that is started for the block within these seconds."""
    if settings.url:
        yield Server(settings.url, settings.token, metrics=settings.metrics)
        return
    # twice as many, because a session that ends overlaps with the next one for a moment
    env = {"AVATAR_LIVE_SESSIONS": str(2 * max(settings.scale.sessions))}
    log = server_log(settings, kind)
    repository = settings.repository_of(kind)
    with Triton(repository, log=log, on_progress=print, start_timeout=seconds, env=env) as triton:
        yield Server(triton.grpc_address, Token(triton.token), triton.metrics_address, triton.pid)


def server_log(settings: Settings, kind: str) -> Path:
    """Return the log of the server of a format."""
    return settings.work / "logs" / f"triton-{kind}.log"


@contextmanager
def service(settings: Settings, server: Server) -> Iterator[Service]:
    """Yield a gateway in front of the server, with an empty cache of avatars."""
    logs = settings.work / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as cache:
        env = {"AVATAR_CACHE_DIR": cache} | dict((TOKEN_VARIABLE, text) for _, text in server.token.metadata())
        with gateway_server(find_free(), server.url, logs, settings=env) as stack:
            pids = {"gateway": stack.processes["gateway"].pid}
            yield Service(stack.url, pids | ({"Triton": server.pid} if server.pid else {}))
