"""Print the section of CHANGELOG.md that a tag releases, after checking that the tag names the project's version.

Usage: `python scripts/release_notes.py v1.2.3`.
It needs no package, so that a wrong tag fails before anything is installed.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# one of each distribution; the first has the version of the service
PACKAGES = (
    "lipsync",
    "client/avatar_client",
    "integrations/livekit/avatar_livekit",
    "integrations/pipecat/avatar_pipecat",
)


def version_of(module: Path) -> str:
    """Return the literal that `module` assigns to `__version__`, without importing it."""
    for node in ast.parse(module.read_text()).body:
        match node:
            case ast.Assign(targets=[ast.Name("__version__")], value=ast.Constant(str(version))):
                return version
    raise ValueError(f"{module} assigns no __version__")


def section(changelog: str, version: str) -> str:
    """Return the text below the heading `## [version]`, up to the next heading of that level.

    Raises ValueError where there is no such section or it is empty.
    """
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if not found or not found[1].strip():
        raise ValueError(f"CHANGELOG.md has no section [{version}]: rename [Unreleased]")
    return found[1].strip() + "\n"


def notes(tag: str, root: Path = ROOT) -> str:
    """Return the release notes of `tag`. Raises ValueError where tag, versions and changelog disagree."""
    versions = {package: version_of(root / package / "__init__.py") for package in PACKAGES}
    version = versions[PACKAGES[0]]
    if {f"v{each}" for each in versions.values()} != {tag}:
        have = ", ".join(f"{Path(package).name} has {each}" for package, each in versions.items())
        raise ValueError(f"the tag {tag} is not the version: {have}")
    return section((root / "CHANGELOG.md").read_text(), version)


def main() -> int:
    """Run the command line; return its exit status."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python scripts/release_notes.py TAG\n")
        return 2
    try:
        sys.stdout.write(notes(sys.argv[1]))
    except ValueError as error:
        sys.stderr.write(f"release_notes: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
