"""`list`: show the contents of a repository."""

from __future__ import annotations

import argparse

from .arguments import add_repository

HELP = "show the contents of a model repository"
DESCRIPTION = (
    "List models and versions (* marks the one that Triton serves to calls that name none) with the share of the jobs "
    "that use each, the format and precision, whether the weights are real or stand-ins, and of the report the worst "
    "score against the original network and the milliseconds per frame in batches of 8."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_repository(parser, "the model repository")
    parser.add_argument(
        "--wide", action="store_true", help="show size, checkpoint with its hash, name and time of each export, too"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from ..build import listing

    print(listing.table(args.repository, wide=args.wide))
    return 0
