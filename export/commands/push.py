"""`push`: put a repository into a model store."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..store.location import LATEST
from .arguments import add_repository, print_line

HELP = "put a model repository into S3, Google Cloud Storage, Azure or a folder"
DESCRIPTION = (
    "Send a model repository to a model store, for `pull` on other machines. Files are stored by their hash, so what "
    "the store has already is not sent. The command prints the hash of the manifest, which `pull` can be bound to. "
    "TensorRT plans are left out: they are built where they run. The standard variables of each cloud give the "
    "credentials, the region and the endpoint (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_SERVICE_ACCOUNT, …)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "destination",
        metavar="DESTINATION",
        help="the store: a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
    )
    add_repository(parser, "the model repository")
    parser.add_argument(
        "--tag", default=LATEST, metavar="NAME", help="the name that leads to it afterwards (default: %(default)s)"
    )
    parser.add_argument(
        "--sign-key",
        type=Path,
        metavar="FILE",
        help="sign the manifest with this Ed25519 private key (PEM; `openssl genpkey -algorithm ed25519`)",
    )


def run(args: argparse.Namespace) -> int:
    """Push the repository."""
    from ..store.push import push

    push(args.repository, args.destination, print_line, tag=args.tag, sign_key=args.sign_key)
    return 0
