"""A cluster on this machine: three Tritons, two gateways, three workers, and Envoy in front of the Tritons."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from avatar_client import AvatarClient
from avatar_client._connection import CHANNEL_OPTIONS, Connection
from avatar_client._infer import InferCaller
from avatar_client._kserve import make_stub
from avatar_client._rotation import Rotation, Server
from embedded.ports import find_free
from embedded.server import Triton
from tests.support.envoy import Envoy, MetadataAdder, envoy_process
from tests.support.gateway_process import gateway_process
from tests.support.worker_process import worker_process

TOKEN = "the-token-of-all-servers-of-the-cluster"  # noqa: S105 - of servers that the test starts
TRITONS, GATEWAYS, WORKERS = 3, 2, 3


class Gateway:
    """A gateway that can be stopped and started again, on the same port."""

    def __init__(self, folder: Path, tritons: str, settings: Mapping[str, str]) -> None:
        self._folder, self._tritons, self._settings = folder, tritons, settings
        self._port = find_free()
        self._stack = ExitStack()
        self.logs: list[Path] = []

    @property
    def address(self) -> str:
        """Return host:port."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """Return its URL."""
        return f"http://{self.address}"

    def start(self) -> None:
        """Start a process, and wait until it answers."""
        own = self._folder / f"run-{len(self.logs)}"
        own.mkdir(parents=True)
        self.logs.append(own / "gateway.log")
        process = gateway_process(own, self._tritons, token=TOKEN, port=str(self._port), **self._settings)
        self._stack.enter_context(process)

    def stop(self) -> None:
        """Send SIGTERM, and wait until the process ends; its exit status must be 0."""
        self._stack.close()


@dataclass(frozen=True)
class Cluster:
    """What runs."""

    tritons: Sequence[Triton]
    gateways: Sequence[Gateway]
    envoy: Envoy
    worker_logs: Sequence[Path]

    @property
    def addresses(self) -> list[str]:
        """Return host:port of each Triton; it stays the same when one is started again."""
        return [triton.grpc_address for triton in self.tritons]

    def kill(self, index: int) -> None:
        """Kill the process of a Triton at once."""
        os.kill(self.tritons[index].pid, signal.SIGKILL)

    def start_again(self, index: int) -> None:
        """Start a Triton that was killed or stopped, on its port, and wait until it is ready."""
        self.tritons[index].stop()
        self.tritons[index].start()

    def logs(self) -> str:
        """Return the ends of all logs, for the message of a failure."""
        files = [*(log for gateway in self.gateways for log in gateway.logs), *self.worker_logs]
        return "\n".join(f"--- {file}\n{file.read_text()[-3000:]}" for file in files)


@contextmanager
def running_cluster(repository: Path, folder: Path, database_url: str, **gateway_settings: str) -> Iterator[Cluster]:
    """Start all of it within the block."""
    numbers = [find_free() for _ in range(TRITONS)]
    tritons = [_triton(repository, folder / f"triton-{port}", port) for port in numbers]
    settings = {
        "AVATAR_DATABASE_URL": database_url,
        "AVATAR_STORE": str(folder / "store"),
        "AVATAR_WORKERS": "0",
        "AVATAR_JOB_LEASE": "10",
        "AVATAR_CACHE_MIB": "0",  # every form calls every model
    }
    (folder / "store").mkdir(mode=0o700)
    with ExitStack() as stack:
        for triton in tritons:
            stack.callback(triton.stop)
        with ThreadPoolExecutor(TRITONS) as threads:
            list(threads.map(lambda triton: triton.start(), tritons))
        addresses = [triton.grpc_address for triton in tritons]
        gateways = [
            Gateway(folder / f"gateway-{number}", ",".join(addresses), settings | gateway_settings)
            for number in range(GATEWAYS)
        ]
        for gateway in gateways:
            stack.callback(gateway.stop)
            gateway.start()
        worker = {"AVATAR_TRITON_URL": ",".join(addresses), "AVATAR_TRITON_TOKEN": TOKEN, "AVATAR_WORKER_JOBS": "2"}
        logs = [stack.enter_context(worker_process(folder / f"worker-{n}", settings | worker)) for n in range(WORKERS)]
        (folder / "envoy").mkdir()
        envoy = stack.enter_context(envoy_process(folder / "envoy", addresses))
        yield Cluster(tritons, gateways, envoy, logs)


def client_of_envoy(envoy: Envoy, timeout: float) -> AvatarClient:
    """Return a client that calls through Envoy, with the key that it requires."""
    client = AvatarClient(envoy.address, timeout=timeout, shared_memory=False)

    def connect(address: str) -> Server:
        plain = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        channel: Any = grpc.intercept_channel(plain, MetadataAdder(envoy.metadata))
        connection = Connection(address, timeout, 2, channel, make_stub(channel))
        return Server(connection, None, InferCaller(connection, None))

    client._rotation = Rotation([envoy.address], connect)
    return client


def _triton(repository: Path, folder: Path, port: int) -> Triton:
    (folder / "work").mkdir(parents=True)
    env = {
        "AVATAR_WORK_DIR": str(folder / "work"),
        "AVATAR_CACHE_DIR": str(folder / "cache"),
        "AVATAR_LIVE_SESSIONS": "40",
    }
    return Triton(repository, grpc_port=port, log=folder / "triton.log", token=TOKEN, threads=1, env=env)
