"""Write requirements.lock from what is installed in the environment that runs this script; `make lock` calls it.

The versions are exact, without local version labels such as `+cpu`. A package that the present lock installs only for
some Python versions keeps its marker. A line for other versions than the running one is kept as it is.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
HEADER = """\
# Every package of the development environment, exact. Installed with --no-deps by `make setup`;
# made by `make lock`. torch: see docs/quickstart.md, "CPU or CUDA".
"""


def main() -> None:
    """Write the lock."""
    pip = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude-editable"]
    installed = subprocess.run(pip, stdout=subprocess.PIPE, text=True, check=True).stdout
    LOCK.write_text(updated(LOCK.read_text().splitlines(), installed.splitlines()))


def updated(lock: Iterable[str], installed: Iterable[str]) -> str:
    """Return the text of the lock for `installed` (lines of `pip freeze`), with the markers of the present lock."""
    markers = {}
    lines = []
    for line in lock:
        requirement = None if line.startswith("#") else Requirement(line)
        if requirement is None or requirement.marker is None:
            continue
        if requirement.marker.evaluate():
            markers[requirement.name] = f" ; {requirement.marker}"
        else:
            lines.append(line)
    for line in installed:
        name, _, version = line.partition("==")
        if name != "pip":
            lines.append(f"{name}=={version.partition('+')[0]}{markers.get(name, '')}")
    return HEADER + "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line.partition("==")[0].lower()))


if __name__ == "__main__":
    main()
