"""`python -m bench perf`: its measurements, its output and its files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import pytest

from avatar_client.access import TOKEN_VARIABLE, Token
from bench.__main__ import main
from bench.triton import report as perf_report
from bench.triton import sweep
from bench.triton.overhead import Overhead, OverheadPlan
from bench.triton.perf_analyzer import Load, PerfMetrics, Target, supported_memory
from bench.triton.report import Measurement, Report
from embedded.server import Triton
from lipsync.tensors import AVATAR, FACE_CROP, FACE_NMS, LIVE, MODELS, WAV2LIP, WAV2LIP_BATCH, Model

TOKEN = Token("a-token-of-this-test")
FAST = PerfMetrics(1234.5, 0.5, 1.0, 2.25, 40.0, network_ms=0.1, queue_ms=0.2, compute_ms=150.0)


def measured(model: Model, callers: int, frames: int = 1, speed: float = 1234.5) -> Measurement:
    return Measurement(Load(model, callers), frames, PerfMetrics(speed, *list(vars(FAST).values())[1:]))


def planned(url: str, *words: str, token: Token = TOKEN) -> list[Load]:
    parser = argparse.ArgumentParser()
    sweep.add_arguments(parser)
    return sweep.loads(parser.parse_args(words), Target(url, token))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_is_measured_in_all_ways_at_every_concurrency(model: Model) -> None:
    loads = [load for load in planned("127.0.0.1:8001") if load.model is model]
    assert {(load.memory, load.callers) for load in loads} == {
        (m, c) for m in supported_memory(model) for c in (1, 2, 4, 8)
    }
    assert len(loads) == len(set(loads)) == (4 if model.streams else 8)


def test_streaming_models_cannot_be_measured_with_shared_memory() -> None:
    loads = planned("127.0.0.1:8001", "--models", "avatar", "wav2lip", "--memory", "system", "--concurrency", "1")
    assert [load.model for load in loads] == [WAV2LIP]
    with pytest.raises(ValueError, match="nothing to measure"):
        planned("127.0.0.1:8001", "--models", "avatar", "live", "--memory", "system")


def test_a_server_on_another_machine_is_measured_without_shared_memory() -> None:
    assert {load.memory for load in planned("triton.example:8001")} == {"none"}
    assert {load.memory for load in planned("triton.example:8001", "--memory", "system")} == {"system"}


def test_without_a_token_shared_memory_is_measured_only_if_it_is_chosen() -> None:
    url = "127.0.0.1:8001"
    assert {load.memory for load in planned(url, token=Token())} == {"none"}
    assert {load.memory for load in planned(url, "--memory", "system", token=Token())} == {"system"}


def test_only_batching_networks_get_batches_up_to_their_maximum() -> None:
    loads = planned("box:8001", "--batch", "100", "--models", "wav2lip", "face_crop", "--concurrency", "3")
    assert [(load.model, load.batch) for load in loads] == [(WAV2LIP, WAV2LIP_BATCH), (FACE_CROP, 1)]


def test_the_table_has_a_row_per_measurement_with_frames_per_second() -> None:
    head, rule, *lines = perf_report.table([measured(WAV2LIP, 8), measured(FACE_CROP, 2, frames=16)]).splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]] == [*perf_report.COLUMNS, *perf_report.TIMES]
    assert set(rule) <= set("|-:")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == ["wav2lip", "1", "none", "8", "1,234", "0.50", "2.25", "40.0", "0.10", "0.20", "150"]
    assert cells[1][:5] == ["face_crop", "1", "none", "2", "19,752"]


def test_the_parts_of_the_time_of_a_streaming_model_are_left_empty(tmp_path: Path) -> None:
    rows = [measured(AVATAR, 1, frames=19, speed=2.0), measured(LIVE, 2, speed=50.0)]
    lines = perf_report.table(rows).splitlines()[2:]
    assert [[cell.strip() for cell in line.split("|")[5:-1]] for line in lines] == [
        ["38.0", "0.50", "2.25", "40.0", "–", "–", "–"],
        ["50.0", "0.50", "2.25", "40.0", "–", "–", "–"],
    ]
    perf_report.write(Report(rows, [], {}), tmp_path)
    for row in json.loads((tmp_path / "perf.json").read_text())["measurements"]:
        assert {row[name] for name in ("network_ms", "queue_ms", "compute_ms")} == {None}


def test_a_report_is_a_table_a_file_of_figures_and_a_chart(tmp_path: Path) -> None:
    rows = [measured(model, callers, speed=50.0 * callers) for model in MODELS for callers in (1, 2, 4)]
    overhead = Overhead(OverheadPlan(rounds=3), "onnx fp32", 2, [9.0, 99.0, 8.0], [10.0, 100.0, 10.0], [1.0], [1.0])
    report = Report(rows, ["s3fd, 8 concurrent, shared memory none: away"], {"s3fd": "openvino int8"}, overhead)
    written = perf_report.write(report, tmp_path / "out")
    assert [path.name for path in written] == ["perf.md", "perf.json", "perf.png"]
    output = written[0].read_text()
    assert "s3fd openvino int8" in output
    assert "- s3fd, 8 concurrent, shared memory none: away" in output
    assert "ratio 0.900 (goal: at least 0.95; MISSED)" in output
    figures = json.loads(written[1].read_text())
    assert len(figures["measurements"]) == len(rows)
    assert figures["serving"]["ratio"] == pytest.approx(0.9)
    image = cv2.imread(str(written[2]))
    assert image is not None
    assert image.std() > 0


@pytest.mark.parametrize("models", [1, 3, 5])
def test_the_chart_has_a_panel_per_model(models: int) -> None:
    figure = perf_report.chart([measured(model, callers) for model in MODELS[:models] for callers in (1, 2)])
    assert sum(panel.get_visible() for panel in figure.axes) == models


def test_without_measurements_there_is_no_chart(tmp_path: Path) -> None:
    written = perf_report.write(Report([], ["all: away"], {}), tmp_path)
    assert [path.name for path in written] == ["perf.md", "perf.json"]
    assert "Nothing was measured." in written[0].read_text()


def test_a_running_server_is_measured(
    triton: Triton, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, triton.token)
    words = ["--url", triton.grpc_address, "--models", FACE_NMS.name, "--concurrency", "2", "--requests", "1"]
    assert main(["perf", *words, "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "[2/2] face_nms, 2 concurrent, shared memory system: " in output
    assert "wav2lip onnxruntime fp32" in output
    assert {path.name for path in tmp_path.iterdir()} == {"perf.md", "perf.json", "perf.png"}


def test_a_failure_is_reported_and_the_rest_is_measured(
    triton: Triton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "perf_analyzer"
    broken.write_text('#!/bin/sh\necho "error: no room" >&2\nexit 99\n')
    broken.chmod(0o755)
    words = ["--url", triton.grpc_address, "--models", FACE_NMS.name, "--concurrency", "1", "--memory", "none"]
    assert main(["perf", *words, "--perf-analyzer", str(broken), "--out", str(tmp_path / "out")]) == 1
    assert "- face_nms, 1 concurrent, shared memory none: no room" in capsys.readouterr().out


def test_an_unreachable_server_is_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["perf", "--url", "127.0.0.1:1", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("bench: ")
    assert not list(tmp_path.iterdir())
