"""The report of `bench gpu`: goals, tables, chart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.gpu import card, goals, plan, report
from bench.gpu.rows import Row
from bench.gpu.schedule import DONE, LEFT_OUT, Outcome
from bench.gpu.settings import FULL, LIVE_GOAL_SESSIONS
from export.triton_config.profiles import PLAN_PROFILES
from lipsync.tensors import WAV2LIP
from tests.bench.gpu.test_schedule import step


def speed(path: str, frames: float) -> Row:
    return {"table": "speed", "variant": "pytorch fp16", "path": path, "batch": 64, "frames_per_second": frames}


def latency(sessions: int, p95: float) -> Row:
    return {"table": "live", "sessions": sessions, "frames_per_second": 25.0, "median_ms": 40.0, "p95_ms": p95}


def verdict(goal: str, value: float) -> Row:
    return {"table": "verdicts", "workload": "a clip", "goal": goal, "limit": 1.0, "value": value, "met": True}


ROWS: list[Row] = [
    {"table": "machine", "name": "GPU", "value": "NVIDIA H100"},
    speed("bare", 30_000.0),
    speed("gRPC", 15_000.0) | {"memory": "none", "callers": 8},
    speed("gRPC", 21_000.0) | {"memory": "cuda", "callers": 8},
    verdict("original ÷ service ≥", 9.5),
    verdict("frames/s ÷ x264 alone ≥", 0.85),
    latency(1, 30.0),
    latency(LIVE_GOAL_SESSIONS, 99.0),
    {"table": "clips", "workload": "a clip", "subject": "service", "median": 1.2, "stages": {"decode": 0.3}},
    {"table": "failures", "what": "a load: no room"},
]


def test_a_goal_is_judged_by_its_own_rows_only() -> None:
    found = {each.goal: (each.value, each.text) for each in goals.verdicts(ROWS)}
    assert list(found.values()) == [(21_000.0, "met"), (9.5, "MISSED"), (0.85, "met"), (99.0, "met")]
    assert {each.text for each in goals.verdicts(ROWS[:2])} == {"not measured"}


def test_tiny_loads_and_a_cpu_are_not_judged() -> None:
    tiny: Row = {"table": "machine", "name": goals.TINY, "value": "tiny"}
    for rows in (ROWS[1:], [*ROWS, tiny]):
        assert {each.text for each in goals.verdicts(rows)} == {"not judged"}


def test_a_report_has_the_card_the_goals_the_steps_and_every_table(tmp_path: Path) -> None:
    outcomes = [Outcome(step("all"), DONE, "", 12.0, ROWS), Outcome(step("plan"), LEFT_OUT, "no trtexec | here")]
    paths = report.write(outcomes, tmp_path / "out")
    assert [path.name for path in paths] == ["gpu.json", "gpu.md", "gpu.png"]
    written = json.loads(paths[0].read_text())
    assert written["machine"]["gpu"] == "NVIDIA H100"
    assert [each["status"] for each in written["steps"]] == [DONE, LEFT_OUT]
    text = paths[1].read_text()
    assert "NVIDIA H100" in text
    assert re.search(r"wav2lip through gRPC on an H100, frames/s ≥ +\| 20,000 +\| 21,000 +\| met", text)
    assert "no trtexec / here" in text
    for table in {str(row["table"]) for row in ROWS}:
        assert f"## {report.TABLES[table][0]}" in text
    assert paths[2].stat().st_size


def test_a_run_without_results_is_reported_too(tmp_path: Path) -> None:
    paths = report.write([Outcome(step("machine"), LEFT_OUT, "no GPU")], tmp_path)
    assert all(path.stat().st_size for path in paths)


METRICS = """\
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.42
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 1073741824
nv_gpu_power_usage{gpu_uuid="GPU-1"} 310.5
nv_gpu_utilization{gpu_uuid="GPU-2"} 0.99
"""


@pytest.mark.parametrize(
    ("text", "sample"),
    [
        ("97, 12345, 650.10\n3, 1, 70\n", (97.0, 12345.0, 650.1)),
        (METRICS, (42.0, 1024.0, 310.5)),
        ("[N/A], 12345, 650.10\n", None),
        ("", None),
        ("No devices were found\n", None),
    ],
)
def test_the_first_gpu_is_read_from_nvidia_smi_or_from_the_metrics_of_triton(
    text: str, sample: tuple[float, ...] | None
) -> None:
    assert card.parse(text) == (pytest.approx(sample) if sample else None)


@pytest.mark.parametrize("batch", FULL.batches)
def test_a_plan_is_measured_in_the_profile_of_its_batch_size(batch: int) -> None:
    profiles = PLAN_PROFILES[WAV2LIP.name]
    options = plan.options(Path("a.plan"), profiles, batch, 4, (10, 9, 0))
    number = next(int(each.partition("=")[2]) for each in options if each.startswith("--useProfile="))
    assert all(
        profiles[number].smallest[name][0] <= batch <= shape[0] for name, shape in profiles[number].largest.items()
    )
    assert f"--shapes=face:{batch}x96x96x3,mel:{batch}x80x16" in options


def test_a_batch_that_no_profile_of_a_plan_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="no optimization profile of wav2lip has batches of 4096"):
        plan.options(Path("a.plan"), PLAN_PROFILES[WAV2LIP.name], 4096, 4, (10, 9, 0))
