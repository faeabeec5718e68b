"""Run PostgreSQL, Triton and the gateway as child processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from embedded.access import TOKEN_VARIABLE, make_token
from embedded.errors import BadDatabase, MissingDependency, PortBusy
from embedded.ports import check_port_free, find_free
from embedded.postgres import database_url, is_ready, socket_folder
from embedded.postgres_cluster import Account
from embedded.postgres_programs import find_programs

from .child import Child
from .errors import StackError

URL_VARIABLE = "AVATAR_DATABASE_URL"  # of the gateway and the workers
DATABASE_OF_ROOT = Path("/var/lib/talking-avatar/database")


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1, and of the gateway on its own host. Triton has no HTTP unless `http` is given."""

    gateway: int = 16000
    grpc: int = 8001
    metrics: int = 8002
    http: int | None = None

    @classmethod
    def free(cls) -> Ports:
        """Return ports that are free at this moment, without one for HTTP."""
        found: list[int] = []
        for _ in range(3):
            found.append(find_free(found))
        return cls(*found)


@dataclass(frozen=True)
class Stack:
    """A running stack: the URL of the gateway, and the servers."""

    url: str
    children: tuple[Child, ...]

    @property
    def processes(self) -> dict[str, subprocess.Popen[bytes]]:
        """Return the servers' processes by package."""
        return {child.package: child.process for child in self.children}


@contextlib.contextmanager
def running(
    repository: Path,
    logs: Path,
    ports: Ports,
    gateway_host: str = "127.0.0.1",
    settings: Mapping[str, str] | None = None,
    database: Path | None = None,
) -> Iterator[Stack]:
    """Start the servers, yield when all are ready, and stop them at the end, PostgreSQL last.

    Args:
        repository: exported models.
        logs: folder for their logs.
        ports: their ports.
        gateway_host: the address that the gateway listens on.
        settings: environment variables of the gateway, added to those of this process.
        database: data folder of a PostgreSQL for the gateway; None starts none.

    Raises:
        StackError: a port is in use, or a server did not become ready.
    """
    check_ports(ports)
    logs.mkdir(parents=True, exist_ok=True)
    # one token for both and for each restart of either
    token = {TOKEN_VARIABLE: os.environ.get(TOKEN_VARIABLE) or make_token()}
    settings = {**token, **(settings or {})}
    with contextlib.ExitStack() as servers:
        children: list[Child] = []
        if database is not None:
            settings[URL_VARIABLE] = database_url(socket_folder(database))
            children.append(servers.enter_context(database_server(database, logs)))
        children.append(servers.enter_context(_triton(repository, logs, ports, token)))
        for child in children:
            child.wait_until_ready()
        address = f"127.0.0.1:{ports.grpc}"
        gateway = servers.enter_context(gateway_server(ports.gateway, address, logs, gateway_host, settings))
        yield Stack(gateway.url, (*children, *gateway.children))


@contextlib.contextmanager
def gateway_server(
    port: int, triton: str, logs: Path, host: str = "127.0.0.1", settings: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """Start only the gateway, over a Triton that runs already; `triton` is its gRPC address, `host:port`.

    Raises:
        StackError: the gateway did not become ready.
    """
    url = f"http://{_reachable_host(host)}:{port}"
    arguments = ("--host", host, "--port", str(port), "--triton", triton)
    with Child("gateway", arguments, f"{url}/health/ready", logs / "gateway.log", settings or {}) as child:
        child.wait_until_ready()
        yield Stack(url, (child,))


def default_database(build: Path) -> Path:
    """Return where PostgreSQL keeps its data: in `build`, unless its user cannot get there, as in /root."""
    folder = build / "database"
    try:
        Account.of(folder).check_reach(folder, "")
    except BadDatabase:
        return DATABASE_OF_ROOT
    return folder


def database_server(data: Path, logs: Path) -> Child:
    """Return a PostgreSQL with this data folder, which is made on first use.

    Raises:
        StackError: it is not installed.
    """
    try:
        programs = find_programs()
    except MissingDependency as error:
        raise StackError(str(error)) from error
    url = database_url(socket_folder(data))
    arguments = ("--data", str(data))
    return Child("embedded.postgres", arguments, "", logs / "postgres.log", check=lambda: is_ready(url, programs))


def _triton(repository: Path, logs: Path, ports: Ports, settings: Mapping[str, str]) -> Child:
    arguments = ["--repository", str(repository), "--log", str(logs / "triton.log")]
    arguments += ["--token-file", str(logs / "triton.token")]
    for kind, port in (("http", ports.http), ("grpc", ports.grpc), ("metrics", ports.metrics)):
        arguments += [f"--{kind}-port", str(port)] if port is not None else []
    # the server opens the port of the metrics last, when every model is ready
    return Child("embedded", tuple(arguments), f"http://127.0.0.1:{ports.metrics}/metrics", settings=settings)


def check_ports(ports: Ports) -> None:
    """Raise StackError if a port is in use: the other server would look like ours, ready before ours fails."""
    flags = {"--port": ports.gateway, "--http-port": ports.http}
    flags |= {"--grpc-port": ports.grpc, "--metrics-port": ports.metrics}
    checked: list[int] = []
    try:
        for flag, port in flags.items():
            if port is not None:
                check_port_free(flag, port, checked)
                checked.append(port)
    except PortBusy as error:
        raise StackError(f'{error}, as in: make up UP="{flag} {find_free(checked)}"') from error


def _reachable_host(host: str) -> str:
    """Return the host part of the URL at which a server that listens on `host` is reachable from this machine."""
    if host == "0.0.0.0":  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{'::1' if host == '::' else host}]" if ":" in host else host
