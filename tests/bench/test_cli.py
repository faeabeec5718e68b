"""`python -m bench`: its commands, their old names, wrong usage, and its end by Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import cli
from bench.__main__ import COMMANDS, OLD_NAMES, main

ROOT = Path(__file__).parents[2]


def usage_error(*words: str) -> int:
    """Exit status of a command line that is rejected before anything starts."""
    try:
        return main(words)
    except SystemExit as ended:
        return int(ended.code or 0)


def test_help_lists_every_command_with_its_summary() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    for name, (_, summary) in COMMANDS.items():
        assert f" {name} {summary} " in words
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not any(f"  {name} " in done.stdout for name in OLD_NAMES)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_explains_the_exit_status(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    output = " ".join(capsys.readouterr().out.split())
    assert output.startswith(f"usage: python -m bench {name} ")
    assert cli.STATUS in output


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_an_old_name_runs_the_command_and_names_the_new_one(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([old, "--help"])
    output = capsys.readouterr()
    assert output.err == f"bench: `{old}` is the old name of `{new}`; it will be removed\n"
    assert output.out.startswith(f"usage: python -m bench {new} ")


@pytest.mark.parametrize("option", ["--workloads", "--works"])
def test_the_list_shows_workloads_and_goals_and_marks_those_to_measure(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--list", option, "still-480p", "--precision", "int8"]) == 0
    output = capsys.readouterr()
    (marked,) = [line for line in output.out.splitlines() if line.startswith("* ")]
    assert "still-480p-int8" in marked
    assert "original ÷ service ≥ 8" in marked
    assert ("`--works` is the old name of `--workloads`" in output.err) == (option == "--works")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("measure",), "no command is named 'measure'; choose from compare, "),
        (("--workloads", "nothing"), "no workload is named 'nothing'"),
        (("--field", "detection"), "not of the form NAME=VALUE"),
        (("--rounds", "0"), "--rounds: 0: not an integer of at least 1"),
        (("--workloads", "still-480p-int8", "--profile", "gpu"), "only fp16 can be measured"),
        (("live", "--sessions", "1,0"), "0: not an integer of at least 1"),
        (("live", "--seconds", "0.5"), "0.5: not a number of seconds from 1 to 3600"),
        (("live", "--seconds", "long"), "long: not a number of seconds"),
        (("live", "--frames", "png"), "invalid choice: 'png'"),
        (("live", "--url", "8001"), "8001: not a gRPC address HOST:PORT"),
        (("perf", "--models", "wav3lip"), "wav3lip: unknown model"),
        (("perf", "--concurrency", "1,0"), "0: not an integer of at least 1"),
        (("perf", "--memory", "cuda"), "cuda: neither none nor system"),
        (("perf", "--url", "8001"), "8001: not a gRPC address HOST:PORT"),
        (("perf", "--batch", "many"), "many: not an integer of at least 1"),
        (("overhead", "--rounds", "-1"), "--rounds: -1: not an integer of at least 1"),
        (("gpu", "--minutes", "0"), "0: not a number of minutes up to 600"),
        (("gpu", "--url", "8001"), "8001: not a gRPC address HOST:PORT"),
        (("gpu", "--url", "localhost:8001", "--repository", "models"), "--url and --repository are both given"),
        (("gpu", "--steps", "machine,speed"), "no step is named 'speed'; choose from machine, "),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_before_anything_starts(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_error(*words) == cli.WRONG_USAGE
    assert message in capsys.readouterr().err


def test_an_expected_error_is_one_line_and_a_defect_is_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    class Failing:
        def __init__(self, error: BaseException) -> None:
            self._error = error

        def add_arguments(self, parser: argparse.ArgumentParser) -> None:
            raise NotImplementedError

        def run(self, args: argparse.Namespace) -> int:
            raise self._error

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert cli.execute(Failing(OSError("no room")), argparse.Namespace()) == cli.FAILED
        assert capsys.readouterr().err == "bench: no room\n"
        assert cli.execute(Failing(KeyboardInterrupt()), argparse.Namespace()) == cli.INTERRUPTED
        assert capsys.readouterr().err == "bench: interrupted\n"
        with pytest.raises(AttributeError):
            cli.execute(Failing(AttributeError("a defect")), argparse.Namespace())
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


def test_ctrl_c_ends_the_run_and_all_that_it_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--workloads", "still-360p-fp32", "--work", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    deadline = time.monotonic() + 180
    while not (tmp_path / "weights" / "README.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == cli.INTERRUPTED
    assert "bench: interrupted" in output
    assert "Traceback" not in output
