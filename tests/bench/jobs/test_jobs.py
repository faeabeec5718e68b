"""The benchmark of a long queue, with a short one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import main


def test_reading_listing_and_taking_jobs_are_timed_with_few_and_with_more_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "jobs.json"
    assert main(["jobs", "--jobs", "30", "--calls", "5", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["ratios"].keys() == {"read a job and its place", "list jobs", "take a job and give it back"}
    assert all(seconds > 0 for kind in ("few", "many") for seconds in report[kind].values())
    assert "30 queued" in capsys.readouterr().out
