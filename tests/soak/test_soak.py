"""A short soak: honest and hostile callers while processes die; `make soak` runs it for half an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import report, soak

SECONDS = 55.0  # with start, comparison at rest and stop, a minute and a half
FAULT_SECONDS = 5.0  # two faults, with the recovery from each
PACE = 0.5  # leaves half of two cores to the other test workers


@pytest.mark.xdist_group("soak")
def test_under_load_every_call_gets_a_right_response_or_a_503_while_processes_are_killed(
    tiny_repository: Path, tmp_path: Path
) -> None:
    plan = soak.SoakPlan(
        tiny_repository,
        tmp_path / "service",
        seconds=SECONDS,
        baseline_seconds=10.0,
        fault_seconds=FAULT_SECONDS,
        pace=PACE,
    )
    result = soak.run(plan)
    print(report.markdown(result))  # pytest shows it where the test fails
    assert result.outcomes.failures == []
    assert result.outcomes.counts["form", "200"] > 0
    assert result.outcomes.counts["avatar", "right"] > 0
    assert result.outcomes.counts["live", "right"] > 0
    assert result.outcomes.recoveries
