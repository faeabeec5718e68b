"""Create virtual environments with some packages of this one, as links, without a package index."""

import re
import sysconfig
import venv
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from importlib.metadata import distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_SITE = Path(sysconfig.get_path("purelib"))


def closure(
    requirements: Iterable[str], environment: Mapping[str, str] | None = None, leaves: Iterable[str] = ()
) -> set[str]:
    """Return the canonical names of the required packages and of all their dependencies, by the installed metadata.

    `environment` changes markers, such as `python_version`; the dependencies of `leaves` are not included.
    """
    seen = {(name, "") for name in leaves}
    _follow(requirements, "", dict(environment or {}), seen)
    return {name for name, _ in seen}


def _environment() -> dict[str, str]:
    return {name: str(value) for name, value in default_environment().items()}


def _follow(requirements: Iterable[str], extra: str, environment: dict[str, str], seen: set[tuple[str, str]]) -> None:
    for requirement in map(Requirement, requirements):
        markers: dict[str, str | AbstractSet[str]] = {**_environment(), **environment, "extra": extra}
        if requirement.marker is not None and not requirement.marker.evaluate(markers):
            continue
        name = canonicalize_name(requirement.name)
        for name_of_extra in ("", *requirement.extras):
            if (name, name_of_extra) not in seen:
                seen.add((name, name_of_extra))
                _follow(distribution(name).requires or (), name_of_extra, environment, seen)


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
        if marker is None or marker.evaluate({**_environment(), "extra": extra}):
            needed.append(line.partition(";")[0].strip())
    return needed
