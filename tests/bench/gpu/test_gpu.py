"""`bench gpu` against live servers on a CPU: the tests check what is measured, not how fast it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from avatar_client.access import TOKEN_VARIABLE, Token
from avatar_client.region_file import FOLDER
from bench.__main__ import main
from bench.errors import BenchError
from bench.gpu import callers, rows
from bench.gpu.callers import Load
from bench.gpu.cuda_memory import CudaMemory
from bench.gpu.schedule import DONE, LEFT_OUT
from bench.gpu.transport import Memory, Server, prepared
from embedded.server import Triton
from lipsync.tensors import WAV2LIP, WAV2LIP_BATCH

WHOLE_RUN_MINUTES = "20"


@pytest.fixture
def server(triton: Triton) -> Server:
    return Server(triton.grpc_address, Token(triton.token), triton.metrics_address)


@pytest.mark.parametrize("memory", [Memory.NONE, Memory.SYSTEM])
def test_every_request_of_every_caller_is_counted(server: Server, memory: Memory) -> None:
    result = callers.measure(server, Load(callers=3, batch=2, memory=memory, seconds=0.3, warm_up=0.05))
    assert result.requests >= 3
    assert 0 < result.p50_ms <= result.p95_ms <= result.p99_ms
    assert result.frames_per_second > 0


def test_shared_memory_gives_the_same_mouths_and_leaves_no_file(server: Server) -> None:
    batch = callers.noise(2, seed=1)
    before = set(FOLDER.glob("bench-*"))
    mouths = []
    for memory in (Memory.NONE, Memory.SYSTEM):
        with prepared(memory, server, WAV2LIP, batch) as request:
            request.send()
            mouths.append(request.output())
    np.testing.assert_array_equal(mouths[0], mouths[1])
    assert set(FOLDER.glob("bench-*")) <= before


def test_a_load_that_the_server_rejects_fails_with_its_words(server: Server) -> None:
    with pytest.raises(BenchError, match=r"callers of 33, shared memory none: .*batch"):
        callers.measure(server, Load(1, WAV2LIP_BATCH + 1, Memory.NONE, seconds=0.1, warm_up=0))


def test_without_a_driver_there_is_no_cuda_shared_memory() -> None:
    with pytest.raises(BenchError, match="NVIDIA's driver is not installed"):
        CudaMemory(1 << 20)


def test_a_step_measures_a_running_server_with_every_kind_of_memory(
    triton: Triton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, triton.token)
    options = ["--device", "cpu", "--quick", "--url", triton.grpc_address, "--work", str(tmp_path)]
    (tmp_path / "steps").mkdir()
    assert main(["gpu", *options, "--run-step", "grpc-repository"]) == 0
    measured = rows.read(tmp_path / "steps" / "grpc-repository.jsonl")
    loads = [(row["memory"], row["batch"]) for row in measured]
    assert loads == [("none", 1), ("none", 2), ("system", 1), ("system", 2)]
    for row in measured:
        assert row["variant"] == "onnxruntime fp32"
        assert (rows.number(row, "frames_per_second") or 0) > 0
        assert (rows.number(row, "mean_batch") or 0) >= 1


def test_a_run_leaves_out_what_needs_the_files_of_a_running_server_and_reports_it(tmp_path: Path) -> None:
    options = ["--url", "127.0.0.1:1", "--steps", "bare-repository,bare-tensorrt,grpc-compiled"]
    assert main(["gpu", *options, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert [step["status"] for step in written["steps"]] == [LEFT_OUT] * 3
    assert written["steps"][0]["reason"] == "the server's models are not on this machine (--url)"


@pytest.mark.slow
def test_a_whole_run_on_a_cpu_measures_everything_but_the_card(tmp_path: Path) -> None:
    paths = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    assert main(["gpu", "--device", "cpu", "--quick", "--minutes", WHOLE_RUN_MINUTES, *paths]) == 0
    written = json.loads((tmp_path / "out" / "gpu.json").read_text())
    outcomes = {step["name"]: step["status"] for step in written["steps"]}
    assert [name for name, status in outcomes.items() if status != DONE] == ["grpc-compiled", "bare-tensorrt"]
    measured = [row for step in written["steps"] for row in step["rows"]]
    assert not rows.of_table(measured, "failures")
    assert all(row["passed"] for row in rows.of_table(measured, "golden"))
    assert {row["table"] for row in measured} == {"machine", "exports", "golden", "speed", "clips", "verdicts", "live"}
