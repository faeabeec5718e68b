"""How the Triton container starts: flags by version, and what a killed server left in /dev/shm."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedded import container, watchdog
from embedded.installation import find_installation

PREFIX = f"{watchdog.REGIONS}x"


def flags(version: str, gpus: int = 0, **environ: str) -> dict[str, str]:
    argv = container.arguments({"NVIDIA_TRITON_SERVER_VERSION": version} | environ, "secret", PREFIX, gpus)
    assert argv[0] == "tritonserver"
    pairs = (flag.removeprefix("--").partition("=") for flag in argv[1:])
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("version", ["24.10", "25.03", "26.11", "27.01dev", ""])
def test_http_is_for_the_container_itself_and_the_side_doors_need_the_token(version: str) -> None:
    given = flags(version)
    assert given["http-address"] == "127.0.0.1"
    assert given["grpc-address"] == given["metrics-address"] == "0.0.0.0"  # noqa: S104 - the network of the containers
    for flag in ("grpc-restricted-protocol", "http-restricted-api"):
        assert given[flag] == "shared-memory,model-repository,trace,logging:avatar-token=secret"


@pytest.mark.parametrize(
    ("version", "known"), [("24.10", 0), ("25.02", 0), ("25.03", 1), ("26.03", 1), ("26.04", 2), ("26.11", 2)]
)
def test_a_server_gets_the_flags_that_its_version_knows(version: str, known: int) -> None:
    given = flags(version, AVATAR_TRITON_SHARED_MEMORY="auto")
    assert given["allow-vertex-ai"] == given["allow-sagemaker"] == "false"
    newer = [name for name in ("grpc-max-response-pool-size", "allow-client-shm") if name in given]
    assert newer == ["grpc-max-response-pool-size", "allow-client-shm"][:known]


def test_clients_may_share_memory_only_where_it_is_asked_for() -> None:
    assert "allow-client-shm" not in flags("26.11")
    assert "allow-client-shm" not in flags("26.11", AVATAR_TRITON_SHARED_MEMORY="off")
    assert flags("26.11", AVATAR_TRITON_SHARED_MEMORY="auto")["allow-client-shm"] == "true"


def test_with_a_collector_triton_traces_the_calls_that_carry_a_traceparent() -> None:
    assert not {"trace-config", "grpc-header-forward-pattern"} & set(flags("26.11", AVATAR_OTLP_ENDPOINT=""))
    environ = {"NVIDIA_TRITON_SERVER_VERSION": "26.11", "AVATAR_OTLP_ENDPOINT": "http://collector:4318/"}
    argv = container.arguments(environ, "secret", PREFIX)
    assert "--grpc-header-forward-pattern=^traceparent$" in argv
    assert {flag.removeprefix("--trace-config=") for flag in argv if flag.startswith("--trace-config=")} == {
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        "rate=0",
        "count=-1",
        "opentelemetry,url=http://collector:4318/v1/traces",
        "opentelemetry,resource=service.name=talking-avatar-triton",
    }
    named = container.arguments(environ | {"OTEL_SERVICE_NAME": "mine"}, "secret", PREFIX)
    assert "--trace-config=opentelemetry,resource=service.name=mine" in named


def test_with_a_gpu_the_pools_of_memory_and_the_threads_for_calls_are_larger(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert container.count_gpus(tmp_path) == 2
    environ = {"NVIDIA_TRITON_SERVER_VERSION": "26.11"}
    added = set(container.arguments(environ, "secret", PREFIX, 2)) - set(container.arguments(environ, "secret", PREFIX))
    assert added == {
        "--pinned-memory-pool-byte-size=2147483648",
        "--cuda-memory-pool-byte-size=0:1073741824",
        "--cuda-memory-pool-byte-size=1:1073741824",
        "--grpc-infer-allocation-pool-size=64",
        "--grpc-infer-thread-count=8",
    }
    assert "grpc-infer-thread-count" not in flags("25.03", gpus=1)


def test_the_oldest_server_accepts_every_flag() -> None:
    parts = find_installation()
    libraries = os.pathsep.join([str(parts.libpython), str(parts.libraries)])
    done = subprocess.run([parts.server, "--help"], capture_output=True, text=True, env={"LD_LIBRARY_PATH": libraries})
    every = {"AVATAR_TRITON_SHARED_MEMORY": "auto", "AVATAR_OTLP_ENDPOINT": "http://collector:4318"}
    for flag in flags("24.10", gpus=1, **every):
        assert re.search(rf"^ +--{flag}\b", done.stdout + done.stderr, re.M), flag


CLAIM = """\
import sys
from pathlib import Path
from embedded.container import claim_prefix
print(claim_prefix(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def start(folder: Path) -> tuple["subprocess.Popen[str]", str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    prefix = process.stdout.readline().strip()
    (folder / f"{prefix}-region").write_bytes(b"memory")
    return process, prefix


def test_a_start_removes_the_regions_of_a_killed_server_and_keeps_those_of_a_running_one(tmp_path: Path) -> None:
    foreign = tmp_path / f"{watchdog.REGIONS}of_somebody_else"
    foreign.write_bytes(b"memory")
    running, kept = start(tmp_path)
    killed, _ = start(tmp_path)
    killed.kill()
    killed.communicate()
    try:
        own = container.claim_prefix(tmp_path)
        assert own.startswith(watchdog.REGIONS)
        assert own != kept
        left = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")}
        assert left == {foreign.name, f"{kept}-region"}
        assert len(list(tmp_path.glob("*.lock"))) == 2
    finally:
        running.communicate()


def test_a_token_that_would_not_work_stops_the_start_and_is_not_shown() -> None:
    env = {**os.environ, "AVATAR_TRITON_TOKEN": "with a space", "NVIDIA_TRITON_SERVER_VERSION": "26.11"}
    done = subprocess.run([sys.executable, "-m", "embedded.container"], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("container: AVATAR_TRITON_TOKEN: 16 to 256 letters")
    assert "with a space" not in done.stderr
