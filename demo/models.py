"""Prepare the models: download the published weights or write stand-ins, then export them."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from .errors import StackError

# The same as export.checkpoints.registry.FILES (a test compares them), because importing that module would load torch.
OFFICIAL_FILES = ("wav2lip.pth", "wav2lip_gan.pth", "s3fd.pth", "xception_pascalvoc.pb")
DOWNLOAD_HOST = ("github.com", 443)  # host of the first source in export.checkpoints.registry
CONNECT_SECONDS = 3.0
DEFAULT_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
ACCEPT_LICENSE = "--accept-license"


def add_variant(parser: argparse._ArgumentGroup) -> None:
    """Add the two options that `variant_args` reads."""
    text = "of the models, as in `python -m export models` (default: what is fastest on this machine)"
    parser.add_argument("--format", choices=("onnx", "torchscript", "openvino"), help=f"format {text}")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), help=f"precision {text}")


def variant_args(options: argparse.Namespace) -> list[str]:
    """Return the values of `add_variant`'s options as arguments of `python -m export models`."""
    chosen = {"--format": options.format, "--precision": options.precision}
    return [word for flag, value in chosen.items() if value for word in (flag, value)]


def prepare(
    weights: Path,
    repository: Path,
    variant: Sequence[str] = (),
    *,
    accept_license: bool = False,
    host: tuple[str, int] = DOWNLOAD_HOST,
) -> None:
    """Export the models of `weights`, or of stand-ins if the folder holds no official file.

    If files are missing and a network is available, they are downloaded first, provided that the user accepts their
    license; at a terminal the user is asked. An interrupted download is continued.

    Args:
        weights: folder of the official files.
        repository: folder for the exported models.
        variant: arguments of `python -m export models`; by default the export chooses what is fastest on this machine.
        accept_license: download without asking.
        host: host and port to test whether a network is available.

    Raises:
        StackError: the export failed, or only some of the official files are present.
    """
    present = [name for name in OFFICIAL_FILES if (weights / name).exists()]
    if not present or (len(present) < len(OFFICIAL_FILES) and list(weights.glob("*.part"))):
        _try_download(weights, accept_license, host)
    if not any((weights / name).exists() for name in OFFICIAL_FILES):
        print(
            f"!! No weights in {weights}/: STAND-INS are used. The pipeline is the real one, the networks are not:\n"
            "!! the stand-in detects the face by its color, and paints a mouth that opens with the loudness.\n"
            "!! How to get the real weights: docs/guide/weights.md"
        )
        weights = weights / "stand-ins"
        _run("export", "stand-ins", "--weights", str(weights))
    export_models(weights, repository, variant)


def export_models(weights: Path, repository: Path, variant: Sequence[str] = ()) -> None:
    """Export the models of exactly this folder; arguments and errors are those of `prepare`."""
    _run("export", "models", "--weights", str(weights), "--repository", str(repository), *variant)


def _try_download(weights: Path, accept_license: bool, host: tuple[str, int]) -> None:
    """Download the published weights (half a gigabyte) with the user's consent, or print why not."""
    command = _command(weights)
    if not accept_license and not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(f"The published weights were not downloaded: their license must be accepted first, by {command}")
    elif not _is_reachable(host):
        print(f"The published weights were not downloaded: there is no network. Where there is one: {command}")
    else:
        try:
            _run("export", "weights", "--dir", str(weights), *([ACCEPT_LICENSE] if accept_license else []))
        except StackError:
            print(f"Continuing without the published weights. To try again, run: {command}")


def _command(weights: Path) -> str:
    """Return the command that downloads the weights. It shows the license, and asks."""
    if weights.resolve() == DEFAULT_WEIGHTS:
        return "make weights"
    return f"{sys.executable} -m export weights --dir {weights}"


def _is_reachable(host: tuple[str, int]) -> bool:
    """Return whether the host accepts connections; assume so where a proxy is configured."""
    if urllib.request.getproxies():
        return True
    try:
        socket.create_connection(host, timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _run(package: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", package, *arguments], check=False)
    if done.returncode:
        raise StackError(f"python -m {package} {arguments[0]} failed")
