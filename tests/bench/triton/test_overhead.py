"""wav2lip through gRPC compared with the bare runtime: both sides do the same work, and the report is correct."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bench.triton import bare_model
from bench.triton import overhead as bench_overhead
from bench.triton.bare_model import BareModel
from bench.triton.overhead import Overhead, OverheadPlan
from embedded.server import Triton
from lipsync.tensors import WAV2LIP
from lipsync.triton.backend_config import BackendConfig
from lipsync.triton.cpu import THREADS_VARIABLE
from tests.support.triton_calls import caller

ROOT = Path(__file__).resolve().parents[3]
SPINNING, DENORMALS = "session.force_spinning_stop", "session.set_denormal_as_zero"


def _backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The onnxruntime backend's module, as Triton would import it."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    path = ROOT / "embedded" / "backends" / "onnxruntime" / "model.py"
    spec = importlib.util.spec_from_file_location("onnxruntime_backend", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bare_session_has_the_options_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    config = {"max_batch_size": 1, "input": [], "output": []}
    args = {"model_config": json.dumps(config), "model_name": "m", "model_repository": "r", "model_version": "1"}
    theirs, ours = _backend(monkeypatch)._options(BackendConfig(args)), bare_model.session_options(3)
    plain = [name for name in dir(theirs) if not name.startswith("_") and not callable(getattr(theirs, name))]
    assert "intra_op_num_threads" in plain
    assert {name: getattr(ours, name) for name in plain} == {name: getattr(theirs, name) for name in plain}
    for key in (SPINNING, DENORMALS):
        assert ours.get_session_config_entry(key) == theirs.get_session_config_entry(key) == "1"


def test_both_sides_generate_the_same_faces(triton: Triton, tiny_exports: Path) -> None:
    batch = bench_overhead._batch(3)
    (bare,) = BareModel(tiny_exports, threads=1).run(batch)
    with caller(triton.grpc_address) as call:
        served = call(WAV2LIP.name, {tensor.name: array for tensor, array in zip(WAV2LIP.inputs, batch, strict=True)})
    assert np.abs(bare.astype(int) - served[WAV2LIP.outputs[0].name]).max() <= 1


def test_every_round_measures_both_sides(triton: Triton, tiny_exports: Path) -> None:
    lines: list[str] = []
    plan = OverheadPlan(callers=2, batch=2, batches=3, rounds=2)
    overhead = bench_overhead.measure(BareModel(tiny_exports, threads=1), triton, plan, lines.append)
    assert (overhead.runtime, len(overhead.served), len(overhead.bare)) == ("onnx fp32", 2, 2)
    assert min(*overhead.served, *overhead.bare) > 0
    assert min(*overhead.served_cpu, *overhead.bare_cpu) >= 0  # the tiny network may take less than a clock tick
    assert lines[-1].startswith("round 2 of 2: gRPC ")


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    # in the second round the machine was ten times as fast for both sides
    speeds, cpu = ([9.7, 96.0, 9.5], [10.0, 100.0, 10.0]), ([0.2, 0.2, 0.3], [0.2, 0.19, 0.2])
    overhead = Overhead(OverheadPlan(rounds=3), "onnx fp32", 2, *speeds, *cpu)
    assert overhead.ratio == pytest.approx(0.96)
    assert overhead.cpu_ratio == pytest.approx(0.95)
    output = bench_overhead.text(overhead)
    assert "ratio 0.960 (goal: at least 0.95; met)" in output
    assert "9.7 frames/s through gRPC, 10.0 frames/s in the bare runtime" in output


def test_a_request_that_fails_is_an_error(triton: Triton) -> None:
    too_many = tuple(np.repeat(array, WAV2LIP.max_batch_size + 1, axis=0) for array in bench_overhead._batch(1))
    with pytest.raises(ValueError, match=r"a request failed: .*batch-size must be <="):
        bench_overhead._served_seconds(triton.grpc_address, too_many, 2, callers=2)


def test_a_folder_without_the_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no exported wav2lip"):
        BareModel(tmp_path, threads=1)
