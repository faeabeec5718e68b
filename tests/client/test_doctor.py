"""The command `avatar doctor` against servers that are away, not ready, or something else than they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as pb

from avatar_client import _cli, _doctor_checks, _doctor_triton, _schema
from lipsync import tensors
from tests.client.fake_http import FakeHttp
from tests.client.fake_server import FakeServer

AWAY = "127.0.0.1:1"
LIVE = {"status": "live", "running": 0, "waiting": 0}
READY = {"status": "ready", "running": 2, "waiting": 1}
GATEWAY: dict[str, tuple[int, object]] = {
    "/health/live": (200, LIVE),
    "/health/ready": (200, READY),
    "/openapi.json": (200, {"info": {"version": "9.8"}}),
    "/v1/jobs": (200, {"jobs": [], "next": None}),
}


class DescribedServer(FakeServer):
    """A Triton that describes its models."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: set[str] = set()
        self.kind = model_config_pb2.ModelInstanceGroup.KIND_CPU
        self.parameters = {"api_version": _schema.API_VERSION, "checkpoint": "real"}

    def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ServerMetadataResponse(version="2.51.0")

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ModelReadyResponse(ready=request.name not in self.missing)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ModelMetadataResponse(name=request.name, versions=["1", "2"] if request.name == "s3fd" else ["1"])

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        config = model_config_pb2.ModelConfig(backend="onnxruntime")
        config.instance_group.add(kind=self.kind)
        for name, value in self.parameters.items():
            config.parameters[name].string_value = value
        return pb.ModelConfigResponse(config=config)


@pytest.fixture
def triton() -> Iterator[DescribedServer]:
    with DescribedServer() as server:
        yield server


@pytest.fixture
def gateway() -> Iterator[FakeHttp]:
    with FakeHttp(dict(GATEWAY)) as server:
        yield server


class Doctor:
    """Runs the command; its JSON and its checks by name."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        status = _cli.main(["doctor", "--json", *arguments])
        self.document = json.loads(self._capsys.readouterr().out)
        assert self.document["ok"] == (status == 0) == (self.document["error"] is None)
        return status, {check["name"]: check for check in self.document["checks"]}


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(capsys)


def test_all_is_well(gateway: FakeHttp, triton: DescribedServer, doctor: Doctor) -> None:
    status, checks = doctor("--url", gateway.url, "--server", triton.address)
    assert status == 0
    assert {check["level"] for check in checks.values()} == {"ok"}
    assert list(checks) == [
        *("client", "preview", "ffmpeg", "gpu", "gateway", "jobs"),
        *("triton", "models", "api", "weights", "hardware", "memory"),
    ]
    assert checks["gateway"]["details"]["version"] == "9.8"
    assert "2 running, 1 waiting" in checks["gateway"]["text"]
    assert checks["models"]["details"]["s3fd"]["versions"] == ["1", "2"]
    assert checks["memory"]["details"]["shared"] is True
    assert triton.regions == {}


def test_no_server_at_all_is_a_problem_with_a_remedy(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avatar_client._cli_parser.SERVER", AWAY)
    monkeypatch.setattr("avatar_client._cli_parser.GATEWAY", f"http://{AWAY}")
    status, checks = doctor()
    assert status == 1
    assert doctor.document["error"]["code"] == "problem_found"
    for name in ("gateway", "triton"):
        assert checks[name]["level"] == "problem"
        assert "connection refused" in checks[name]["text"] and "make up" in checks[name]["remedy"]


def test_a_server_that_was_not_named_is_a_warning_if_the_other_answers(
    triton: DescribedServer, gateway: FakeHttp, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avatar_client._cli_parser.SERVER", triton.address)
    monkeypatch.setattr("avatar_client._cli_parser.GATEWAY", f"http://{AWAY}")
    status, checks = doctor()
    assert (status, checks["gateway"]["level"]) == (0, "warning")
    status, checks = doctor("--url", f"http://{AWAY}")
    assert (status, checks["gateway"]["level"]) == (1, "problem")
    monkeypatch.setenv("AVATAR_SERVER", AWAY)
    status, checks = doctor("--url", gateway.url)
    assert (status, checks["triton"]["level"], checks["gateway"]["level"]) == (1, "problem", "ok")


def test_what_the_gateway_reports_is_shown(gateway: FakeHttp, triton: DescribedServer, doctor: Doctor) -> None:
    faults = {"database_fault": "no route", "last_fault": "the disk is full", "last_fault_seconds_ago": 7}
    tritons = [{"server": "a:1", "healthy": True}, {"server": "b:1", "healthy": False}]
    gateway.answers["/health/live"] = (200, LIVE | faults)
    gateway.answers["/health/ready"] = (200, READY | {"triton": tritons})
    gateway.answers["/v1/jobs"] = (401, {"detail": "a key is needed", "code": "unauthorized"})
    del gateway.answers["/openapi.json"]
    status, checks = doctor("--url", gateway.url, "--server", triton.address)
    assert status == 1
    levels = {name: checks[name]["level"] for name in ("gateway", "database", "machine", "jobs")}
    assert levels == {"gateway": "warning", "database": "warning", "machine": "warning", "jobs": "problem"}
    assert "without b:1" in checks["gateway"]["text"] and "AVATAR_DOCS=false" in checks["gateway"]["text"]
    assert "AVATAR_API_KEY" in checks["jobs"]["remedy"]


@pytest.mark.parametrize(
    ("code", "status", "level"), [("no_database", 501, "ok"), ("database_unavailable", 503, "problem")]
)
def test_a_gateway_without_jobs(
    code: str, status: int, level: str, gateway: FakeHttp, triton: DescribedServer, doctor: Doctor
) -> None:
    gateway.answers["/v1/jobs"] = (status, {"detail": "no", "code": code})
    _, checks = doctor("--url", gateway.url, "--server", triton.address)
    assert checks["jobs"]["level"] == level


def test_a_gateway_that_is_not_ready_says_why(gateway: FakeHttp, triton: DescribedServer, doctor: Doctor) -> None:
    gateway.answers["/health/ready"] = (503, {"detail": "s3fd cannot be reached: its process died"})
    status, checks = doctor("--url", gateway.url, "--server", triton.address)
    assert (status, checks["gateway"]["level"]) == (1, "problem")
    assert "its process died" in checks["gateway"]["text"]


def test_wrong_ports_are_named(gateway: FakeHttp, triton: DescribedServer, doctor: Doctor) -> None:
    status, checks = doctor("--url", triton.address, "--server", gateway.url.removeprefix("http://"))
    assert status == 1
    assert "speaks gRPC, not HTTP" in checks["gateway"]["text"]
    assert "speaks HTTP, not gRPC" in checks["triton"]["text"]
    gateway.answers = {}
    _, checks = doctor("--url", gateway.url, "--server", triton.address)
    assert "Triton's port for HTTP" in checks["gateway"]["text"]


def test_models_weights_and_versions_are_judged(gateway: FakeHttp, triton: DescribedServer, doctor: Doctor) -> None:
    triton.ready, triton.missing = False, {"live"}
    triton.parameters = {"api_version": "2.0", "checkpoint": "stand-in"}
    triton.kind = model_config_pb2.ModelInstanceGroup.KIND_GPU
    triton.token = "another"  # noqa: S105
    status, checks = doctor("--url", gateway.url, "--server", triton.address)
    levels = {name: checks[name]["level"] for name in ("triton", "models", "api", "weights", "hardware", "memory")}
    assert status == 1
    assert levels == {
        **{"triton": "problem", "models": "problem", "api": "problem", "weights": "warning"},
        **{"hardware": "ok", "memory": "warning"},
    }
    assert checks["models"]["text"] == "not ready: live"
    assert checks["weights"]["details"] == {"stand_ins": list(_doctor_triton.NETWORKS)}
    assert "AVATAR_TRITON_TOKEN" in checks["memory"]["remedy"]


@pytest.mark.parametrize(
    ("served", "level"), [("1.0", "warning"), (_schema.API_VERSION, "ok"), ("1.99", "ok"), ("", "problem")]
)
def test_the_version_of_the_tensors_is_compared(
    served: str, level: str, gateway: FakeHttp, triton: DescribedServer, doctor: Doctor
) -> None:
    triton.parameters = {"api_version": served} if served else {}
    _, checks = doctor("--url", gateway.url, "--server", triton.address)
    assert checks["api"]["level"] == level


def test_a_person_reads_it_in_60_columns(
    gateway: FakeHttp, triton: DescribedServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    triton.missing = {"avatar"}
    assert _cli.main(["doctor", "--url", gateway.url, "--server", triton.address]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert "problem models   not ready: avatar" in lines
    assert lines[-1] == "1 problem, no warnings"


def program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shell script take the place of a program, and let the PATH have nothing else."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_ffmpeg_and_its_encoders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _doctor_checks.check_ffmpeg().details == {"path": None, "version": None, "encoders": []}
    listed = " V....D libx264              H.264\\n A....D aac                  AAC\\n V....D h264_nvenc_x  no\\n"
    script = f'case "$*" in -version) echo "ffmpeg version 7.1 Copyright";; *) printf "{listed}";; esac'
    program(tmp_path, "ffmpeg", script, monkeypatch)
    check = _doctor_checks.check_ffmpeg()
    assert (check.level, check.details["version"], check.details["encoders"]) == ("ok", "7.1", ["libx264", "aac"])
    assert "without h264_nvenc" in check.text
    program(tmp_path, "ffmpeg", "exit 1", monkeypatch)
    assert _doctor_checks.check_ffmpeg().level == "warning"


def test_gpus_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _doctor_checks.check_gpu().details == {"gpus": []}
    program(tmp_path, "nvidia-smi", 'echo "NVIDIA H200, 143771 MiB, 570.1"', monkeypatch)
    check = _doctor_checks.check_gpu()
    assert check.details["gpus"] == [{"name": "NVIDIA H200", "memory.total": "143771 MiB", "driver_version": "570.1"}]
    program(tmp_path, "nvidia-smi", 'echo "No devices were found"; exit 6', monkeypatch)
    assert _doctor_checks.check_gpu().level == "warning"


def test_a_gpu_that_nothing_uses_is_a_warning(
    gateway: FakeHttp, triton: DescribedServer, doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "nvidia-smi", 'echo "NVIDIA H200, 143771 MiB, 570.1"', monkeypatch)
    _, checks = doctor("--url", gateway.url, "--server", triton.address)
    assert checks["hardware"]["level"] == "warning"
    triton.kind = model_config_pb2.ModelInstanceGroup.KIND_GPU
    _, checks = doctor("--url", gateway.url, "--server", triton.address)
    assert checks["hardware"]["level"] == "ok"


def test_the_networks_are_those_of_the_service_that_have_weights() -> None:
    named = {model.name for model in tensors.MODELS}
    assert set(_doctor_triton.NETWORKS) <= named and set(_doctor_triton.PUBLIC) <= named
    with_weights = {tensors.S3FD, tensors.WAV2LIP, tensors.WAV2LIP_GAN, tensors.SEGMENTATION}
    assert {model.name for model in with_weights} == set(_doctor_triton.NETWORKS)
