"""All packages that some requirements need, by the metadata of the packages in the running environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from importlib.metadata import distribution

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(
    requirements: Iterable[str], environment: Mapping[str, str] | None = None, leaves: Iterable[str] = ()
) -> set[str]:
    """Return the canonical names of the required packages and of all their dependencies, by the installed metadata.

    `environment` changes markers, such as `python_version`; the dependencies of `leaves` are not included.
    """
    seen = {(name, "") for name in leaves}
    _follow(requirements, "", dict(environment or {}), seen)
    return {name for name, _ in seen}


def marker_environment() -> dict[str, str]:
    """Return the values of the markers in the running Python."""
    return {name: str(value) for name, value in default_environment().items()}


def _follow(requirements: Iterable[str], extra: str, environment: dict[str, str], seen: set[tuple[str, str]]) -> None:
    for requirement in map(Requirement, requirements):
        markers: dict[str, str | AbstractSet[str]] = {**marker_environment(), **environment, "extra": extra}
        if requirement.marker is not None and not requirement.marker.evaluate(markers):
            continue
        name = canonicalize_name(requirement.name)
        for name_of_extra in ("", *requirement.extras):
            if (name, name_of_extra) not in seen:
                seen.add((name, name_of_extra))
                _follow(distribution(name).requires or (), name_of_extra, environment, seen)
