"""Write a software bill of materials (CycloneDX 1.6, JSON) for each image and for the development environment.

Usage: `python -m scripts.sbom TOOL FOLDER`, where TOOL is the command `cyclonedx-py` (`make sbom`). The lists hold
the Python packages of requirements.lock, not the packages of the base images (Debian's, NVIDIA's).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .requirements_closure import closure

ROOT = Path(__file__).resolve().parents[1]
# extra of pyproject.toml → the Python of its image
IMAGES = {"gateway": "3.11", "triton": "3.12", "export": "3.11"}
WITHOUT_DEPENDENCIES = ("imantics", "pixellib")  # as docker/install.sh installs them


def locked(names: Iterable[str] | None, python: str) -> list[str]:
    """Return the lines of the lock for these packages (all of them for None) on a version of Python."""
    wanted = None if names is None else {canonicalize_name(name) for name in names}
    lines = []
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        here = requirement.marker is None or requirement.marker.evaluate({"python_version": python})
        if here and (wanted is None or canonicalize_name(requirement.name) in wanted):
            lines.append(f"{requirement.name}{requirement.specifier}")
    return lines


def packages_of(extra: str, python: str) -> list[str]:
    """Return the lines of the lock that the image of an extra installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"][extra]]
    names = closure(needed, {"python_version": python, "python_full_version": f"{python}.0"})
    return locked(names | set(WITHOUT_DEPENDENCIES if extra != "export" else ()), python)


def main(tool: str, folder: Path) -> None:
    """Write one file for each image, and one for the whole lock."""
    folder.mkdir(parents=True, exist_ok=True)
    lists = {extra: packages_of(extra, python) for extra, python in IMAGES.items()}
    lists["development"] = locked(None, "3.11")
    for name, lines in lists.items():
        target = folder / f"{name}.cdx.json"
        argv = [tool, "requirements", "-", "--output-format", "JSON", "--spec-version", "1.6", "--output-reproducible"]
        argv += ["--output-file", str(target), "--pyproject", str(ROOT / "pyproject.toml")]
        # the tool warns that a list of requirements has no graph of dependencies
        quiet = os.environ | {"PYTHONWARNINGS": "ignore"}
        subprocess.run(argv, input="\n".join(lines), text=True, check=True, env=quiet)
        count = len(re.findall(r'"type": "library"', target.read_text()))
        print(f"{target}: {count} packages")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
