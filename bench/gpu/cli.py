"""`python -m bench gpu`: every figure of a machine with a GPU, in one run that is limited in time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..cli import DONE, FAILED, host_port
from ..errors import UsageError
from ..paths import OUT, WORK
from . import report, rows, schedule
from .errors import LeftOut
from .report import goal_table
from .schedule import Outcome
from .settings import Settings
from .steps import Step, steps

MINUTES = 25.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gpu`."""
    parser.description = (
        "Compare the golden data behind a live server, count the frames per second of wav2lip in every format, bare "
        "and through gRPC, time clips against the original algorithm and against x264 alone, and run live sessions. "
        "Each step has a time limit, and what cannot be measured is recorded with its reason. Needs no network."
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="device of the networks (default: cuda)"
    )
    parser.add_argument(
        "--minutes", type=_minutes, default=MINUTES, help=f"time of the whole run (default: {MINUTES:g})"
    )
    parser.add_argument("--quick", action="store_true", help="tiny loads and clips, to try the command itself")
    parser.add_argument("--steps", metavar="NAME,…", help="only these steps and what they need; names as in --list")
    parser.add_argument("--list", action="store_true", help="list the steps, and exit")
    server = parser.add_argument_group("server (default: servers are started on models that are exported for them)")
    server.add_argument("--url", type=host_port, metavar="HOST:PORT", help="gRPC address of a server that runs already")
    server.add_argument(
        "--metrics", type=host_port, metavar="HOST:PORT", help="its metrics, for GPU use where there is no nvidia-smi"
    )
    server.add_argument("--repository", type=Path, metavar="DIR", help="start servers on these exported models")
    paths = parser.add_argument_group("paths")
    paths.add_argument(
        "--work",
        type=Path,
        default=WORK / "gpu",
        metavar="DIR",
        help="models, media and logs (default: build/bench/gpu)",
    )
    paths.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help="folder for gpu.json, gpu.md and gpu.png, written after every step (default: out)",
    )
    parser.add_argument("--run-step", help=argparse.SUPPRESS)  # the run starts a process for each step with it


def run(args: argparse.Namespace) -> int:
    """Run the steps, and write what was measured after each of them.

    A goal that is missed, or a step that cannot run here, is no failure of the run; a step that fails is.
    """
    if args.url and args.repository:
        raise UsageError("--url and --repository are both given; a server that runs already has its own models")
    settings = Settings.of(args)
    if args.run_step:
        return _run_step(args.run_step, settings)
    chosen = _chosen(args.steps, steps(settings))
    if args.list:
        print("\n".join(f"{step.name:<20}{step.title}, at most {step.seconds:.0f} s" for step in chosen))
        return DONE
    outcomes: list[Outcome] = []
    command = schedule.step_command(_arguments(args))
    for outcome in schedule.run(chosen, command, settings.work / "steps", args.minutes):
        outcomes.append(outcome)
        print(report.text(outcome), flush=True)
        paths = report.write(outcomes, args.out)
    print(f"\n{goal_table(report.all_rows(outcomes))}\n\nwrote {', '.join(map(str, paths))}", flush=True)
    return FAILED if any(each.status == schedule.FAILED for each in outcomes) else DONE


def _run_step(name: str, settings: Settings) -> int:
    """Run one step in this process; its rows go into its file, and an error to stderr."""
    (step,) = (each for each in steps(settings) if each.name == name)
    file = settings.work / "steps" / f"{name}.jsonl"
    try:
        for row in step.run(settings):
            rows.append(file, row)
            print(report.row_text(row), flush=True)
    except LeftOut as error:
        print(error, file=sys.stderr)
        return schedule.LEFT_OUT_STATUS
    return DONE


def _chosen(names: str | None, every: Sequence[Step]) -> list[Step]:
    """Return the steps of these names with those that they need, in their order."""
    if names is None:
        return list(every)
    by_name = {step.name: step for step in every}
    wanted: set[str] = set()
    for name in names.split(","):
        if name not in by_name:
            raise UsageError(f"no step is named {name!r}; choose from {', '.join(by_name)}")
        wanted |= {name, *by_name[name].after}
    return [step for step in every if step.name in wanted]


def _arguments(args: argparse.Namespace) -> list[str]:
    """Return the options that a step needs, as words."""
    words = ["--device", args.device, "--work", str(args.work), *(["--quick"] if args.quick else [])]
    for name in ("url", "metrics", "repository"):
        if value := getattr(args, name):
            words += [f"--{name}", str(value)]
    return words


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 600:
        raise argparse.ArgumentTypeError(f"{text}: not a number of minutes up to 600")
    return minutes
