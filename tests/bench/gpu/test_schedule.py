"""The steps of `bench gpu` in processes of their own: what becomes of one that fails, hangs, or cannot run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from bench.gpu import rows, schedule
from bench.gpu.rows import Row
from bench.gpu.schedule import CUT, DONE, FAILED, LEFT_OUT, Outcome
from bench.gpu.settings import Settings
from bench.gpu.steps import Step


def nothing(settings: Settings) -> Iterator[Row]:
    """A step whose process is a shell script of the test."""
    yield from ()


def step(name: str, *after: str, seconds: float = 20.0) -> Step:
    return Step(name, "a step", seconds, nothing, after)


def outcomes(scripts: Mapping[Step, str], folder: Path, minutes: float = 5.0) -> list[Outcome]:
    """Run the steps as shell scripts, which find their file of rows in $ROWS."""

    def command(one: Step) -> Sequence[str]:
        return ["env", f"ROWS={folder / one.name}.jsonl", "sh", "-c", scripts[one]]

    return list(schedule.run(list(scripts), command, folder, minutes))


def test_a_step_that_fails_is_recorded_with_its_last_words_and_the_others_run(tmp_path: Path) -> None:
    row = """echo '{"table": "speed", "batch": 64}' >> $ROWS"""
    first, second = outcomes({step("a"): f"{row}; echo 'bench: no room' >&2; exit 1", step("b"): row}, tmp_path)
    assert (first.status, first.reason, first.rows) == (FAILED, "no room", [{"table": "speed", "batch": 64}])
    assert (second.status, second.reason, len(second.rows)) == (DONE, "", 1)


def test_a_crash_without_words_is_recorded_with_its_status(tmp_path: Path) -> None:
    (crashed,) = outcomes({step("a"): "kill -SEGV $$"}, tmp_path)
    assert (crashed.status, crashed.reason) == (FAILED, "exit status -11")


def test_a_step_without_what_it_needs_is_left_out_and_so_are_those_after_it(tmp_path: Path) -> None:
    scripts = {step("a"): "echo 'no GPU here' >&2; exit 3", step("b", "a"): "exit 0", step("c"): "exit 0"}
    first, second, third = outcomes(scripts, tmp_path)
    assert (first.status, first.reason) == (LEFT_OUT, "no GPU here")
    assert (second.status, second.reason) == (LEFT_OUT, "it needs the step a")
    assert third.status == DONE


def test_a_step_is_cut_at_its_limit_with_all_that_it_started_and_keeps_its_rows(tmp_path: Path) -> None:
    script = """echo '{"table": "speed"}' >> $ROWS; sleep 60 & echo $! > child; wait"""
    begin = time.monotonic()
    (cut,) = outcomes({step("a", seconds=0.5): f"cd {tmp_path}; {script}"}, tmp_path)
    assert (cut.status, cut.reason, cut.rows) == (CUT, "not over after 0 s", [{"table": "speed"}])
    assert time.monotonic() - begin < 20
    child = int((tmp_path / "child").read_text())
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - begin < 20
        time.sleep(0.01)


def test_no_step_starts_when_the_time_of_the_run_is_over(tmp_path: Path) -> None:
    (late,) = outcomes({step("a"): "exit 0"}, tmp_path, minutes=(schedule.STOP_SECONDS + 5) / 60)
    assert (late.status, late.reason) == (LEFT_OUT, "no time left; give more --minutes, or fewer --steps")


def test_rows_of_an_earlier_run_are_not_reported_again(tmp_path: Path) -> None:
    rows.append(tmp_path / "a.jsonl", {"table": "old"})
    (outcome,) = outcomes({step("a"): "exit 0"}, tmp_path)
    assert outcome.rows == []
