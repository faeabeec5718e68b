"""`trial`: change the share of the jobs that use the versions that are tried."""

from __future__ import annotations

import argparse

from .arguments import add_repository, print_line, share

HELP = "change the share of the jobs that use the versions that are tried"
DESCRIPTION = (
    "Change the share of the jobs that use the versions which `models --trial` has put next to the active ones."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_repository(parser, "the model repository")
    parser.add_argument("--share", type=share, required=True, metavar="SHARE", help="of the jobs, from 0 to 1")


def run(args: argparse.Namespace) -> int:
    """Change the share."""
    from ..build import trials

    trials.set_share(args.repository, args.share, print_line)
    return 0
