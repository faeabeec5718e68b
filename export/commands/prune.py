"""`prune`: remove older versions from a repository."""

from __future__ import annotations

import argparse

from .arguments import add_keep, add_repository, print_line

HELP = "remove older versions"
DESCRIPTION = "Remove the older versions of every exported network, except for the newest N of them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_repository(parser, "the model repository")
    add_keep(parser)


def run(args: argparse.Namespace) -> int:
    """Remove the versions."""
    from ..build import repository

    repository.prune(args.repository, args.keep, print_line)
    return 0
