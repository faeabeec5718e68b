"""A Python in which only some of this environment's packages are installed; made without an index or a network."""

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
    """Canonical names of all that the requirements need, themselves included, by the metadata of what is installed.

    `environment` changes markers, such as `python_version`; what `leaves` need is not followed.
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
        for wished in ("", *requirement.extras):
            if (name, wished) not in seen:
                seen.add((name, wished))
                _follow(distribution(name).requires or (), wished, environment, seen)


def make(folder: Path, names: Iterable[str]) -> Path:
    """A virtual environment in `folder` that has these packages, as links to those here; its Python."""
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
    """Requirements of a wheel by its METADATA, with those of one extra."""
    needed = []
    for line in re.findall(r"^Requires-Dist: (.+)$", metadata, re.M):
        marker = Requirement(line).marker
        if marker is None or marker.evaluate({**_environment(), "extra": extra}):
            needed.append(line.partition(";")[0].strip())
    return needed
