"""`stand-ins`: write stand-in checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import print_line

HELP = "write stand-in checkpoints, for machines without the published weights"
DESCRIPTION = (
    "Write stand-ins for the four checkpoints, in the official formats and under the official names. Files that this "
    "command did not write are never overwritten."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--weights", type=Path, required=True, metavar="DIR", help="destination folder")


def run(args: argparse.Namespace) -> int:
    """Write the stand-ins."""
    from .. import stand_ins

    stand_ins.write(args.weights, print_line)
    return 0
