"""The command line of the exporter, `python -m export`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Protocol

from .commands import activate, configs, models, plans, prune, pull, push, rollback, stand_ins, trial, weights
from .commands import list as list_
from .errors import ExportError

FAILED = 1  # exit status; 0 is success, and argparse exits with 2 for wrong usage
EPILOG = "Exit status: 0 done, 1 failed, 2 wrong usage."


class _Command(Protocol):
    """A module of `commands`."""

    HELP: str
    DESCRIPTION: str

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the command's options."""
        ...

    def run(self, args: argparse.Namespace, /) -> int:
        """Run the command and return the exit status."""
        ...


COMMANDS: dict[str, _Command] = {
    "weights": weights,
    "stand-ins": stand_ins,
    "models": models,
    "plans": plans,
    "list": list_,
    "trial": trial,
    "activate": activate,
    "rollback": rollback,
    "prune": prune,
    "push": push,
    "pull": pull,
    "configs": configs,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed."""
    args = parser().parse_args(argv)
    try:
        return COMMANDS[args.command].run(args)
    except (ExportError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("export: interrupted", file=sys.stderr)
    return FAILED


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    result = argparse.ArgumentParser(
        prog="python -m export", description="Build a Triton model repository from checkpoints.", epilog=EPILOG
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(
            commands.add_parser(name, help=command.HELP, description=command.DESCRIPTION, epilog=EPILOG)
        )
    return result
