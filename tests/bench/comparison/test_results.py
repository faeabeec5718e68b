"""Ratios, goals and what is written of them; nothing here is measured."""

import json
from pathlib import Path

import cv2
import pytest

from bench.comparison import chart, report
from bench.comparison.memory_monitor import Peak
from bench.comparison.results import (
    CACHED_AVATAR,
    SEQUENTIAL,
    COLD,
    ENCODER,
    NEW_AVATAR,
    ORIGINAL,
    CONCURRENT,
    ENCODER_ALL_CORES,
    WorkloadResult,
    Spread,
    Timing,
    bare_networks,
)
from bench.comparison.workloads import WORKLOADS

MACHINE = report.Machine("a processor", 2, "", "today")


@pytest.fixture
def one() -> WorkloadResult:
    """A video in three rounds, of which the second ran while the machine was twice as slow."""
    measured = WorkloadResult(WORKLOADS["video-480p-int8"], "openvino int8", "OpenVINO", frames=250, batch=16)
    measured.timings = [Timing(COLD, 0, 9.0)]
    for turn, slow in ((1, 1.0), (2, 2.0), (3, 1.1)):
        nets = {"detection": 5.0 * slow, "generation": 1.0 * slow}
        measured.timings += [
            Timing(ORIGINAL, turn, 120.0 * slow, {"detection": 100.0 * slow, "generation": 20.0 * slow}),
            Timing(NEW_AVATAR, turn, 2.0 * slow, {"detection": 0.5 * slow, "generation": 1.2 * slow}),
            Timing(CACHED_AVATAR, turn, 1.5 * slow, {"generation": 1.2 * slow}),
            Timing(bare_networks("OpenVINO"), turn, 6.0 * slow, nets),
            Timing(ENCODER, turn, 0.25 * slow),
        ]
    measured.scaled = {"the original's detection": (16, 250)}
    measured.memory = {"original": Peak(3 << 30, 1), "gateway: ffmpeg": Peak(100 << 20, 2)}
    return measured


@pytest.fixture
def many() -> WorkloadResult:
    measured = WorkloadResult(WORKLOADS["8-video-720p-fp16"], "torchscript fp16", "PyTorch", frames=250)
    measured.timings = [
        Timing(SEQUENTIAL, 1, 10.0, {}, (1.25,) * 8),
        Timing(CONCURRENT, 1, 8.0, {}, (2, 2, 4, 4, 6, 6, 8, 8)),
        Timing(ENCODER_ALL_CORES, 1, 0.9),
    ]
    return measured


def test_ratios_are_taken_round_by_round_so_that_a_slow_moment_of_the_machine_is_no_ratio(one: WorkloadResult) -> None:
    assert one.speedup == Spread(pytest.approx(60), pytest.approx(60), pytest.approx(60))
    assert one.seconds(NEW_AVATAR) == Spread(pytest.approx(2.2), 2.0, 4.0)


def test_the_same_again_is_held_against_the_bare_generator_and_the_encoder(one: WorkloadResult) -> None:
    assert one.cached_ratio is not None
    assert one.cached_ratio.median == pytest.approx(1.5 / 1.25)
    goals = {verdict.goal: (verdict.value, verdict.met) for verdict in one.verdicts()}
    assert goals == {
        "original ÷ service ≥": (pytest.approx(60), True),
        "the same again ÷ (bare generator + encoder) ≤": (pytest.approx(1.2), False),
    }


def test_forms_at_once_are_held_against_one_after_another_the_mean_wait_and_x264(many: WorkloadResult) -> None:
    values = [verdict.value for verdict in many.verdicts()]
    assert values == [pytest.approx(0.8), pytest.approx(8 / 5), pytest.approx(8 * 0.9 / 8)]
    assert all(verdict.met for verdict in many.verdicts())


def test_a_goal_without_measurements_is_neither_met_nor_missed() -> None:
    verdict = WorkloadResult(WORKLOADS["still-480p-int8"]).verdicts()[1]
    assert (verdict.value, verdict.met) == (None, None)
    assert verdict.text == "seconds ≤ the clip's 7: not measured"


def test_what_is_printed_names_medians_ratios_goals_stages_memory_and_the_scaling(one: WorkloadResult) -> None:
    said = report.text(one)
    assert "service, a new avatar           2.20 s    2.00 s    4.00 s   60.0 (60.0 … 60.0)" in said
    assert "goal: original ÷ service ≥ 50: 60.0, met" in said
    assert "goal: the same again ÷ (bare generator + encoder) ≤ 1.15: 1.20, MISSED" in said
    assert "stages, the original algorithm: detection 110.00 s, generation 22.00 s" in said
    assert "memory: original 3,072; gateway: ffmpeg 100 ×2" in said
    assert "scaled: the original's detection from 16 of 250 frames; the original looks for faces in 16 at once" in said


def test_a_work_that_failed_says_why(one: WorkloadResult) -> None:
    one.failure = "400: no face"
    assert report.text(one).endswith("FAILED: 400: no face")


def test_the_json_holds_each_measurement_and_what_follows(one: WorkloadResult, many: WorkloadResult) -> None:
    first, second = json.loads(report.as_json(MACHINE, [one, many]))["works"]
    assert (first["name"], len(first["timings"])) == ("video-480p-int8", 16)
    assert first["ratios"]["original ÷ service"]["median"] == pytest.approx(60)
    assert [goal["met"] for goal in first["goals"]] == [True, False]
    assert second["timings"][1]["waits"][-1] == 8


def test_the_markdown_is_tables_of_even_rows(one: WorkloadResult, many: WorkloadResult) -> None:
    said = report.markdown(MACHINE, [one, many, WorkloadResult(WORKLOADS["still-360p-int8"], failure="no face")])
    assert "| **60.0 (60.0 … 60.0)** |" in said
    assert "- video-480p-int8: the original's detection from 16 of 250 frames" in said
    for table in (part for part in said.split("\n\n") if part.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_chart_is_drawn_with_and_without_anything_to_show(one: WorkloadResult, many: WorkloadResult, tmp_path: Path) -> None:
    for found in ([one, many], [many]):
        chart.draw(found, MACHINE.text, tmp_path / "chart.png")
        picture = cv2.imread(str(tmp_path / "chart.png"))
        assert picture is not None
        assert picture.shape[1] > 1000
