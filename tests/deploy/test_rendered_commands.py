"""The commands, variables and probes of the rendered pods start our processes: they run here, with other paths."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedded import command_line
from embedded import container as triton_container
from embedded.backend_directory import build_backends
from embedded.installation import find_installation
from embedded.ports import find_free
from embedded.server import Triton
from export.cli import main as export
from lipsync.tensors import WAV2LIP
from scripts.check_deploy import rendered
from tests.support import network_without_plan
from tests.support.chart import container, environment, named
from tests.support.dockerfiles import ROOT
from tests.support.fake_trtexec import FakeTrtexec, write_nvidia_smi

SECONDS = 120.0


class Machine:
    """This machine in the place of a node: folders for the mounts, and free ports for those of the containers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports: dict[str, str] = {}

    def path(self, inside: str) -> str:
        """Return the folder here for a folder of the container."""
        path = self._folder / inside.strip("/")
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def port(self, number: str) -> str:
        return self.ports.setdefault(number, str(find_free([int(each) for each in self.ports.values()])))

    def here(self, part: Mapping[str, Any], **given: str) -> dict[str, str]:
        """Return the variables of a container with the paths and ports of this machine; `given` replaces some."""
        made = {**os.environ, "AVATAR_WORK_DIR": self.path("work"), "AVATAR_CACHE_DIR": self.path("cache")}
        for name, value in environment(dict(part)).items():
            if name in given:
                value = given[name]
            elif name.endswith("_PORT"):
                value = self.port(value)
            elif name.endswith("_HOST"):
                value = "127.0.0.1"
            elif value.startswith("/"):
                value = self.path(value)
            made[name] = value
        return made


def command_of(part: Mapping[str, Any]) -> list[str]:
    """Return the command with the Python of this environment."""
    command = [str(word) for word in part.get("command", part.get("args", ()))]
    return [sys.executable if re.fullmatch(r"python3?", command[0]) else command[0], *command[1:]]


@contextmanager
def running(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command; end it by SIGTERM, which has to give the status 0 in the time of the pod."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0, log.read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.1)


def answers(address: str, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.parametrize(("component", "port"), [("gateway", "16000"), ("worker", "16001")])
def test_gateway_and_worker_start_with_the_command_and_variables_of_their_pod(
    component: str, port: str, triton: Triton, database_url: str, tmp_path: Path
) -> None:
    part = container("trial", component)
    machine = Machine(tmp_path)
    env = machine.here(part, AVATAR_DATABASE_URL=database_url, AVATAR_TRITON_URL=f"dns:///{triton.grpc_address}")
    log = tmp_path / "log"
    with running(command_of(part), env, log) as process:
        address = f"127.0.0.1:{machine.port(port)}"
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = part[name]["httpGet"]["path"]
            wait_for(lambda path=path: answers(address, path), process, log)  # type: ignore[misc]
    assert '"level"' in log.read_text()  # one object per line


@pytest.mark.slow
def test_triton_starts_with_the_command_of_its_pod_and_its_probe_calls_every_model(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = container("trial", "triton")
    machine = Machine(tmp_path)
    argv = container_command(part, tiny_repository, tmp_path, machine, monkeypatch)
    env = command_line.environment(find_installation(), 1, machine.here(part))
    probe = [each.replace("8000", machine.port("8000")) for each in part["readinessProbe"]["exec"]["command"]]
    log = tmp_path / "log"
    with running(argv, env, log) as process:

        def ready() -> bool:
            return subprocess.run(command_of({"command": probe}), cwd=ROOT, capture_output=True).returncode == 0

        wait_for(ready, process, log)
        assert answers(f"127.0.0.1:{machine.port('8002')}", "/metrics")


def test_the_metrics_that_keda_asks_for_exist(triton: Triton) -> None:
    (trigger,) = named(rendered("gpu"), "ScaledObject", "-triton")["spec"]["triggers"]
    with urllib.request.urlopen(f"http://{triton.metrics_address}/metrics", timeout=10) as answer:
        exported = answer.read().decode()
    metrics = set(re.findall(r"nv_\w+", trigger["metadata"]["query"]))
    assert metrics == {"nv_inference_queue_duration_us", "nv_inference_compute_infer_duration_us"}
    for metric in metrics:
        assert re.search(rf'^{metric}{{model="wav2lip",', exported, re.M), metric


def container_command(
    part: Mapping[str, Any], repository: Path, folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Return what `embedded.container` becomes, with the server of the wheel and ports of this machine."""
    assert command_of(part)[1:] == ["-m", "embedded.container"]
    became: list[str] = []
    monkeypatch.setattr(os, "execve", lambda path, argv, env: became.extend(argv))
    monkeypatch.setattr(triton_container, "REPOSITORY", str(repository))
    monkeypatch.setattr(triton_container, "HTTP", f"127.0.0.1:{machine.port('8000')}")
    monkeypatch.setattr("embedded.private_memory.keep_private", lambda: None)  # would be kept by this process
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "24.10")
    triton_container.main()
    found = find_installation()
    start = became.index("--")
    guard = [*became[:start], "--metrics", f"127.0.0.1:{machine.port('8002')}"]
    server = [str(found.server) if each == "tritonserver" else each for each in became[start + 1 :]]
    loopback = [each.replace("0.0.0.0", "127.0.0.1") for each in server]  # noqa: S104 - replaced
    ports = [f"--grpc-port={machine.port('8001')}", f"--metrics-port={machine.port('8002')}"]
    return [*guard, "--", *loopback, *ports, f"--backend-directory={build_backends(folder, found)}"]


def test_triton_pulls_at_its_start_what_the_exporter_has_pushed(tiny_repository: Path, tmp_path: Path) -> None:
    push, pull = container("gpu", "export", "push"), container("gpu", "triton", "pull")
    folder = tmp_path / "store"
    private, public = tmp_path / "model-store.key", tmp_path / "model-store.pub"
    for arguments in (["genpkey", "-algorithm", "ed25519", "-out"], ["pkey", "-pubout", "-in", str(private), "-out"]):
        path = public if "pkey" in arguments else private
        subprocess.run(["openssl", *arguments, str(path)], check=True, capture_output=True)
    replaced = {
        "s3://avatar-models/gpu": str(folder),
        "/models/repository": str(tiny_repository),
        "/var/lib/avatar/keys/model-store.key": str(private),
    }
    argv = [replaced.get(word, word) for word in command_of(push)[3:]]
    assert export(argv) == 0
    source = environment(pull)["AVATAR_MODEL_STORE"].replace("s3://avatar-models/gpu", str(folder))
    env = {**os.environ, "AVATAR_MODEL_STORE": source, "AVATAR_MODEL_STORE_KEY": str(public)}
    assert environment(pull)["AVATAR_MODEL_STORE_KEY"].endswith("/model-store.pub")
    target = tmp_path / "models" / "repository"
    argv = [word.replace("/models/repository", str(target)) for word in command_of(pull)]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in target.glob("*/config.pbtxt")} == {"config.pbtxt"}
    assert {path.name for path in target.iterdir()} >= {path.name for path in tiny_repository.iterdir()}


def test_the_plans_are_built_by_the_command_of_their_container(tmp_path: Path) -> None:
    part = container("gpu", "triton", "plans")
    repository, trtexec = tmp_path / "repository", FakeTrtexec(tmp_path / "bin")
    network_without_plan.write(WAV2LIP, b"the network", repository)
    write_nvidia_smi(trtexec.program.with_name("nvidia-smi"), "NVIDIA H100 80GB HBM3, 9.0")
    # what NVIDIA's image has in fixed places, and the two volumes
    argv = [word.replace("/models/repository", str(repository)) for word in command_of({"command": part["args"]})]
    argv += ["--trtexec", str(trtexec.program), "--cache", str(tmp_path / "engines")]
    env = {**Machine(tmp_path).here(part), "PATH": f"{trtexec.program.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(trtexec.builds()) == 1
    assert 'backend: "tensorrt"' in (repository / "wav2lip" / "config.pbtxt").read_text()
    assert [path.name for path in (tmp_path / "engines").rglob("*.plan")]


def test_the_init_container_waits_until_the_exporter_has_renamed_its_folder(tmp_path: Path) -> None:
    part = container("trial", "triton", "wait")
    python, flag, code = command_of(part)
    argv = [python, flag, code.replace("/models/repository", str(tmp_path / "repository")).replace("(10)", "(0.1)")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert "has not made" in process.stdout.readline()
        (tmp_path / "repository").mkdir()
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize(("component", "name"), [("triton", "plans"), ("triton", "pull"), ("export", "push")])
def test_the_exporters_commands_are_those_of_its_program(component: str, name: str) -> None:
    part = container("gpu", component, name)
    done = subprocess.run([*command_of(part), "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for flag in (word for word in command_of(part) if word.startswith("--")):
        assert flag in done.stdout


def test_the_exporter_is_the_script_of_its_image() -> None:
    for rendering in ("gpu", "trial"):
        part = container(rendering, "export")
        assert part["command"] == ["bash", "export.sh"]  # its ENTRYPOINT; tests/docker runs it
        script = (ROOT / "docker" / "export.sh").read_text()
        for name in environment(part):
            assert name.removeprefix("EXPORT_") in script
