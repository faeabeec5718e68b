"""Create virtual environments with some packages of this one, as links, without a package index."""

import re
import sysconfig
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from scripts.requirements_closure import marker_environment

_SITE = Path(sysconfig.get_path("purelib"))


def make(folder: Path, names: Iterable[str]) -> Path:
    """Create a virtual environment with links to these packages, and return its Python."""
    venv.create(folder, symlinks=True, with_pip=False)
    site = folder / _SITE.relative_to(sysconfig.get_path("data"))
    for name in names:
        for file in _files(name):
            link = site / file
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(_SITE / file)
    return folder / "bin" / "python"


def _files(name: str) -> Iterator[Path]:
    for file in distribution(name).files or ():
        path = Path(file)
        if ".." not in path.parts and (_SITE / path).exists():
            yield path


def needed_by(metadata: str, extra: str) -> list[str]:
    """Return the requirements in the METADATA of a wheel, including those of one extra."""
    needed = []
    for line in re.findall(r"^Requires-Dist: (.+)$", metadata, re.M):
        marker = Requirement(line).marker
        if marker is None or marker.evaluate({**marker_environment(), "extra": extra}):
            needed.append(line.partition(";")[0].strip())
    return needed
