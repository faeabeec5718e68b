"""`pull`: fetch a repository from a model store."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import ExportError
from .arguments import add_repository, positive_seconds, print_line

SOURCE, KEY = "AVATAR_MODEL_STORE", "AVATAR_MODEL_STORE_KEY"  # variables of the environment
HELP = "fetch a model repository that `push` has stored"
DESCRIPTION = (
    "Fetch a model repository from a model store. Every file is checked against its hash before anything is put in "
    "place, and then everything in one step. What is there already is not fetched, and an interrupted pull goes on "
    "where it ended. With `@sha256:HASH` exactly that repository is fetched; with --verify-key only one that was "
    "signed with the private half of that key. The command needs none of the exporter's frameworks."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        default=os.environ.get(SOURCE, ""),
        help=f"the store, and after it @TAG or @sha256:HASH (default: the variable {SOURCE}; its tag: latest)",
    )
    add_repository(parser, "folder for Triton, created if it does not exist; it must not be a mount point")
    parser.add_argument(
        "--verify-key",
        type=Path,
        default=os.environ.get(KEY) or None,
        metavar="FILE",
        help=f"the Ed25519 public key (PEM) that the manifest must be signed for (default: the variable {KEY})",
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=3600.0,
        metavar="SECONDS",
        help="time that all transfers together may take (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Pull the repository."""
    if not args.source:
        raise ExportError(f"name the model store as SOURCE or in {SOURCE}")
    from ..store.pull import PullOptions, pull

    options = PullOptions(args.verify_key, args.timeout)
    pull(args.source, args.repository, print_line, options)
    return 0
