import pytest

from bench.comparison import workloads
from bench.comparison.workloads import WORKLOADS, Kind
from export.variants import Precision

CPU = (Precision.FP32, Precision.INT8)


def test_a_workload_is_found_by_its_name() -> None:
    assert all(work.name == name for name, work in WORKLOADS.items())
    work = WORKLOADS["video-720p-int8"]
    assert (work.kind, work.width, work.height, work.seconds) == (Kind.VIDEO, 1280, 720, 10)


def test_the_goals_are_the_documented_ones() -> None:
    speedups = {name: work.goals.speedup for name, work in WORKLOADS.items() if work.goals.speedup}
    assert speedups == {
        "still-480p-fp32": 3,
        "still-480p-int8": 8,
        "video-480p-fp32": 20,
        "video-480p-int8": 50,
        "video-720p-fp32": 30,
        "video-720p-int8": 80,
        "video-720p-fp16": 10,
    }
    assert [name for name, work in WORKLOADS.items() if work.goals.real_time] == ["still-480p-int8"]
    many = {name: work.goals for name, work in WORKLOADS.items() if work.forms == 8}
    assert all((goals.concurrent_ratio, goals.unfairness) == (0.9, 2) for goals in many.values())
    assert [name for name, goals in many.items() if goals.encoder_ratio == 0.8] == ["8-video-720p-fp16"]


def test_the_default_is_each_size_and_every_goal_of_the_precisions() -> None:
    chosen = workloads.default_workloads(CPU)
    sizes = {(work.kind, work.height) for work in chosen}
    assert {(kind, height) for kind in Kind for height in (360, 720, 1080)} <= sizes
    with_goal = {work.name for work in WORKLOADS.values() if work.goals.speedup and work.precision in CPU}
    assert with_goal <= {work.name for work in chosen}
    assert any(work.forms == 8 for work in chosen)
    assert {work.precision for work in workloads.default_workloads((Precision.FP16,))} == {Precision.FP16}
    assert len(workloads.default_workloads(CPU, quick=True)) < len(chosen) / 2


def test_a_name_without_a_precision_selects_all_of_them() -> None:
    selected = workloads.by_name(["still-480p", "video-360p-int8", "still-480p-int8"], CPU)
    assert [work.name for work in selected] == ["still-480p-fp32", "still-480p-int8", "video-360p-int8"]


def test_an_unknown_name_and_another_precision_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"no workload is named 'still-481p'; --list"):
        workloads.by_name(["still-481p"], CPU)
    with pytest.raises(ValueError, match=r"video-720p-fp16: only fp32, int8 can be measured"):
        workloads.by_name(["video-720p-fp16"], CPU)
