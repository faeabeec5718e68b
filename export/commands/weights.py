"""`weights`: download the published checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import print_line

HELP = "download the published checkpoints, or copy them from a folder"
DESCRIPTION = (
    "Fetch the four published checkpoints into a folder. Downloads have several sources, resume after an interruption, "
    "and are checked against the published size and SHA-256. Files that are already present and correct are not "
    "touched. Proxies are taken from the environment. The Wav2Lip weights are for research and personal use only."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--dir", type=Path, default=Path("weights"), help="destination folder (default: weights)")
    parser.add_argument(
        "--from",
        dest="source_folder",
        type=Path,
        metavar="DIR",
        help="copy the files from this folder and download nothing",
    )
    parser.add_argument(
        "--accept-license", action="store_true", help="accept the license of the Wav2Lip weights without a prompt"
    )
    parser.add_argument(  # an old name, accepted until 0.2
        "--accept-licence", dest="accept_license", action="store_true", help=argparse.SUPPRESS
    )
    parser.add_argument("--mirror", metavar="URL", help="try this address first; it serves the official file names")
    parser.add_argument(
        "--replace", action="store_true", help="replace a file that has an official name but another hash"
    )
    parser.add_argument(
        "--unverified",
        action="store_true",
        help="with --from: also accept files with another hash (weights that you trained) if they load",
    )


def run(args: argparse.Namespace) -> int:
    """Fetch the checkpoints."""
    from ..checkpoints import fetch, registry

    files = registry.with_mirror(registry.PUBLISHED, args.mirror) if args.mirror else registry.PUBLISHED
    options = fetch.FetchOptions(args.accept_license or None, args.replace, args.unverified, args.source_folder)
    fetch.fetch(args.dir, print_line, options, files=files)
    return 0
