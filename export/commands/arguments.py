"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_repository(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `--repository`."""
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help=text)


def add_keep(parser: argparse.ArgumentParser) -> None:
    """Add `--keep`."""
    parser.add_argument(
        "--keep",
        type=_count,
        default=1,
        metavar="N",
        help="number of older versions of each network to keep (default: 1)",
    )


def print_line(line: str) -> None:
    """Print a line of progress at once, even into a pipe."""
    print(line, flush=True)


def positive_seconds(text: str) -> float:
    """Return a number of seconds, more than 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return number


def share(text: str) -> float:
    """Return a share of the jobs, from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number
