"""A short soak: honest and hostile callers while processes die; `make soak` runs it for half an hour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.soak import report, soak
from tests.soak.chaos import FAULTS

SECONDS = 16.0  # or until the service has recovered; with start, comparison at rest and stop, 45 s
FAULT_SECONDS = 4.0
PACE = 0.8  # leaves most of two cores to the other test workers
# the service replaces its whole Triton then; tests/e2e/test_recovery.py causes the other faults
MODEL = next(fault for fault in FAULTS if fault.name == "wav2lip killed")

pytestmark = pytest.mark.xdist_group("soak")


@dataclass(frozen=True)
class Soaked:
    """A soak that has ended: its result, and the folder of the logs of the service."""

    result: soak.SoakResult
    logs: Path


@pytest.fixture(scope="module")
def soaked(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Soaked:
    """A short soak of `demo up`; the fixture fails unless Ctrl-C ends that with status 0 and without a process left."""
    folder = tmp_path_factory.mktemp("soak") / "service"
    plan = soak.SoakPlan(
        tiny_repository,
        folder,
        seconds=SECONDS,
        baseline_seconds=5.0,
        fault_seconds=FAULT_SECONDS,
        faults=(MODEL,),
        pace=PACE,
    )
    result = soak.run(plan)
    print(report.markdown(result))  # pytest shows it where a test fails
    return Soaked(result, folder / "logs")


def test_under_load_every_call_gets_a_right_response_or_a_503_while_processes_are_killed(soaked: Soaked) -> None:
    outcomes = soaked.result.outcomes
    assert outcomes.failures == []
    assert outcomes.counts["form", "200"] > 0
    assert outcomes.counts["avatar", "right"] > 0
    assert outcomes.counts["live", "right"] > 0
    assert MODEL.name in outcomes.recoveries


def test_a_killed_model_is_reported_and_its_server_started_again(soaked: Soaked) -> None:
    log = (soaked.logs / "up.log").read_text()
    assert "embedded: the process of the model wav2lip died" in log
    assert "demo: embedded ended by itself (exit status 3); restart 1 in 0.5 s" in log
    assert "demo: embedded is ready again" in log


def test_the_service_names_its_addresses_and_stops_its_database_last(soaked: Soaked) -> None:
    log = (soaked.logs / "up.log").read_text()
    assert "open http://127.0.0.1:" in log
    assert "form: http://127.0.0.1:" in log
    assert "database: postgresql://" in log
    assert "database system is shut down" in (soaked.logs / "postgres.log").read_text()
