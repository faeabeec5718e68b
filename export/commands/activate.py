"""`activate`: make what is tried the active versions."""

from __future__ import annotations

import argparse

from .arguments import add_repository, print_line

HELP = "make the versions that are tried the active ones"
DESCRIPTION = (
    "End the trial that `models --trial` has started: its versions become the active ones, for all jobs and callers. "
    "The versions before them stay in the repository, and `rollback` returns to them."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_repository(parser, "the model repository")


def run(args: argparse.Namespace) -> int:
    """Activate the versions."""
    from ..build import trials

    trials.activate(args.repository, print_line)
    return 0
