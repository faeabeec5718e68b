"""`rollback`: go back to the versions before."""

from __future__ import annotations

import argparse

from .arguments import add_repository, print_line

HELP = "end a trial, or go back to the versions before the active ones"
DESCRIPTION = (
    "While new versions are tried: end that, so that the active ones serve all jobs. Otherwise: make the versions the "
    "active ones that were so before. `models` does not bring back what was rolled back, except with --trial."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_repository(parser, "the model repository")


def run(args: argparse.Namespace) -> int:
    """Go back."""
    from ..build import trials

    trials.rollback(args.repository, print_line)
    return 0
