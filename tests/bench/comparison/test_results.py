"""Ratios, goals and reports, computed from given timings."""

import json
from dataclasses import astuple
from pathlib import Path

import cv2
import pytest

from bench.comparison import chart, report
from bench.comparison.memory_monitor import Peak
from bench.comparison.results import (
    CACHED_AVATAR,
    COLD,
    CONCURRENT,
    ENCODER,
    ENCODER_ALL_CORES,
    NEW_AVATAR,
    ORIGINAL,
    SEQUENTIAL,
    Timing,
    WorkloadResult,
    bare_networks,
)
from bench.comparison.workloads import WORKLOADS
from bench.machine import Machine

MACHINE = Machine("a processor", 2, "", "today")


@pytest.fixture
def one() -> WorkloadResult:
    """A video in three rounds, the second of which ran while the machine was twice as slow."""
    result = WorkloadResult(WORKLOADS["video-480p-int8"], "openvino int8", "OpenVINO", frames=250, batch=16)
    result.timings = [Timing(COLD, 0, 9.0)]
    for round_number, slow in ((1, 1.0), (2, 2.0), (3, 1.1)):
        networks = {"detection": 5.0 * slow, "generation": 1.0 * slow}
        result.timings += [
            Timing(ORIGINAL, round_number, 120.0 * slow, {"detection": 100.0 * slow, "generation": 20.0 * slow}),
            Timing(NEW_AVATAR, round_number, 2.0 * slow, {"detection": 0.5 * slow, "generation": 1.2 * slow}),
            Timing(CACHED_AVATAR, round_number, 1.5 * slow, {"generation": 1.2 * slow}),
            Timing(bare_networks("OpenVINO"), round_number, 6.0 * slow, networks),
            Timing(ENCODER, round_number, 0.25 * slow),
        ]
    result.scaled = {"the original's detection": (16, 250)}
    result.memory = {"original": Peak(3 << 30, 1), "gateway: ffmpeg": Peak(100 << 20, 2)}
    return result


@pytest.fixture
def many() -> WorkloadResult:
    result = WorkloadResult(WORKLOADS["8-video-720p-fp16"], "torchscript fp16", "PyTorch", frames=250)
    result.timings = [
        Timing(SEQUENTIAL, 1, 10.0, {}, (1.25,) * 8),
        Timing(CONCURRENT, 1, 8.0, {}, (2, 2, 4, 4, 6, 6, 8, 8)),
        Timing(ENCODER_ALL_CORES, 1, 0.9),
    ]
    return result


def test_ratios_are_computed_per_round_so_that_a_slow_machine_does_not_change_them(one: WorkloadResult) -> None:
    assert one.speedup is not None
    assert astuple(one.speedup) == pytest.approx((60, 60, 60))
    seconds = one.seconds(NEW_AVATAR)
    assert seconds is not None
    assert astuple(seconds) == pytest.approx((2.2, 2.0, 4.0))


def test_a_cached_avatar_is_compared_with_the_bare_generator_and_the_encoder(one: WorkloadResult) -> None:
    assert one.cached_ratio is not None
    assert one.cached_ratio.median == pytest.approx(1.5 / 1.25)
    goals = {verdict.goal: (verdict.value, verdict.met) for verdict in one.verdicts()}
    assert goals == {
        "original ÷ service ≥": (pytest.approx(60), True),
        "same avatar ÷ (bare generator + encoder) ≤": (pytest.approx(1.2), False),
    }


def test_concurrent_forms_are_compared_with_sequential_ones_the_mean_response_time_and_x264(
    many: WorkloadResult,
) -> None:
    values = [verdict.value for verdict in many.verdicts()]
    assert values == [pytest.approx(0.8), pytest.approx(8 / 5), pytest.approx(8 * 0.9 / 8)]
    assert all(verdict.met for verdict in many.verdicts())


def test_a_goal_without_measurements_is_neither_met_nor_missed() -> None:
    verdict = WorkloadResult(WORKLOADS["still-480p-int8"]).verdicts()[1]
    assert (verdict.value, verdict.met) == (None, None)
    assert verdict.text == "real time: seconds ≤ 7: not measured"


def test_the_text_has_medians_ratios_goals_stages_memory_and_scaling(one: WorkloadResult) -> None:
    output = report.text(one)
    assert "service, new avatar             2.20 s    2.00 s    4.00 s   60.0 (60.0 … 60.0)" in output
    assert "goal: original ÷ service ≥ 50: 60.0, met" in output
    assert "goal: same avatar ÷ (bare generator + encoder) ≤ 1.15: 1.20, MISSED" in output
    assert "stages, the original algorithm: detection 110.00 s, generation 22.00 s" in output
    assert "memory: original 3,072; gateway: ffmpeg 100 ×2" in output
    assert (
        "scaled: the original's detection from 16 of 250 frames; the original's detector has a batch size of 16"
        in output
    )


def test_a_failed_workload_shows_the_reason(one: WorkloadResult) -> None:
    one.failure = "400: no face"
    assert report.text(one).endswith("FAILED: 400: no face")


def test_the_json_has_each_measurement_and_the_ratios(one: WorkloadResult, many: WorkloadResult) -> None:
    first, second = json.loads(report.as_json(MACHINE, [one, many]))["workloads"]
    assert (first["name"], len(first["timings"])) == ("video-480p-int8", 16)
    assert first["ratios"]["original ÷ service"]["median"] == pytest.approx(60)
    assert [goal["met"] for goal in first["goals"]] == [True, False]
    assert second["timings"][1]["waits"][-1] == 8


def test_the_markdown_tables_have_rows_of_equal_length(one: WorkloadResult, many: WorkloadResult) -> None:
    output = report.markdown(MACHINE, [one, many, WorkloadResult(WORKLOADS["still-360p-int8"], failure="no face")])
    assert "| **60.0 (60.0 … 60.0)** |" in output
    assert "- video-480p-int8: the original's detection from 16 of 250 frames" in output
    for table in (part for part in output.split("\n\n") if part.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_chart_is_drawn_with_and_without_rows(one: WorkloadResult, many: WorkloadResult, tmp_path: Path) -> None:
    for workloads in ([one, many], [many]):
        chart.draw(workloads, MACHINE.text, tmp_path / "chart.png")
        image = cv2.imread(str(tmp_path / "chart.png"))
        assert image is not None
        assert image.shape[1] > 1000
