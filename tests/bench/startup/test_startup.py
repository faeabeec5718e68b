"""The start of jobs is measured for this checkout and for another commit."""

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.errors import BenchError
from bench.paths import ROOT
from bench.startup import measure
from bench.startup.cli import line
from bench.startup.measure import Result, Run, Workload


def test_a_line_has_the_medians_and_the_median_of_the_ratios() -> None:
    before = (Run(0.2, 0.4, 0.3, 3), Run(0.4, 0.4, 0.3, 3), Run(0.3, 0.4, 0.3, 3))
    after = (Run(0.1, 0.3, 0.3, 1), Run(0.1, 0.3, 0.3, 1), Run(0.3, 0.3, 0.3, 1))
    expected = "| still | 300 → 100 | 0.50 | 400 → 300 | 0.75 | 300 → 300 | 1.00 | 3 → 1 |"
    assert line(Result("still", before, after)) == expected
    assert line(Result("still", (), after)) == "| still | 100 |  | 300 |  | 300 |  | 1 |"


def test_a_job_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measure, "WARM_UPS", 1)
    whole = measure.workloads
    monkeypatch.setattr("bench.startup.cli.workloads", lambda folder: whole(folder)[:1])
    assert main(["startup", "--rounds", "1", "--out", str(tmp_path / "out.json")]) == 0
    (result,) = json.loads((tmp_path / "out.json").read_text())["results"]
    (run,) = result["after"]
    assert run["processes"] == 1  # the encoder
    assert 0 < run["first"] < run["total"]
    assert "still, WAV of 16 kHz" in capsys.readouterr().out


def test_a_job_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with measure.running(ROOT) as worker, pytest.raises(BenchError, match="the job of nothing failed"):
        worker.run(Workload("nothing", tmp_path / "empty", tmp_path / "empty", still=True))


def test_a_commit_that_git_does_not_know_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--against nonsense: "):
        measure.extract("nonsense", tmp_path)
