"""Build wheels, and create virtual environments with some packages of this one, as links, without a package index."""

import csv
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from scripts.requirements_closure import marker_environment

_SITE = Path(sysconfig.get_path("purelib"))
_NONE = SpecifierSet("<0")  # no version
_BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"  # what pip calls


def make(folder: Path, names: Iterable[str]) -> Path:
    """Create a virtual environment with links to these packages, and return its Python."""
    venv.create(folder, symlinks=True, with_pip=False)
    site = site_of(folder / "bin" / "python")
    for path in {path for name in names for path in _paths(name)}:
        link = site / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(_SITE / path)
    return folder / "bin" / "python"


def site_of(python: Path) -> Path:
    """Return the folder of the packages of an environment."""
    return python.parents[1] / _SITE.relative_to(sysconfig.get_path("data"))


def _paths(name: str) -> Iterator[Path]:
    """Yield what to link for a package: whole folders, with their byte code, where the package owns them."""
    record = distribution(name).read_text("RECORD") or ""
    files = {row[0] for row in csv.reader(record.splitlines())}
    for top in {file.partition("/")[0] for file in files} - {".."}:
        # a folder without `__init__.py`, such as `google`, may have files of several packages
        if top.endswith(".dist-info") or (_SITE / top / "__init__.py").exists():
            yield Path(top)
        else:
            yield from (Path(file) for file in files if file.partition("/")[0] == top and (_SITE / file).exists())


def unsatisfied(requirements: Iterable[str], python: Path, constraints: Iterable[str]) -> list[str]:
    """Return what the packages of an environment lack of these requirements and of their own ones, by the rules of pip.

    `constraints`: more requirements of the same packages, such as those of a lock; each package must have one.
    """
    installed = {canonicalize_name(each.name): each for each in distributions(path=[str(site_of(python))])}
    allowed = {canonicalize_name(each.name): each.specifier for each in map(Requirement, constraints)}
    missing: list[str] = []
    seen: set[tuple[str, str]] = set()

    def follow(lines: Iterable[str], extra: str) -> None:
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({**marker_environment(), "extra": extra}):
                continue
            name = canonicalize_name(requirement.name)
            found = installed.get(name)
            if not found or found.version not in requirement.specifier or found.version not in allowed.get(name, _NONE):
                missing.append(line)
                continue
            for named in {"", *requirement.extras}:
                if (name, named) not in seen:
                    seen.add((name, named))
                    follow(found.requires or (), named)

    follow(requirements, "")
    return missing


def copy_of_sources(project: Path, folder: Path) -> Path:
    """Copy a project without what builds leave in it; return the copy."""
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    return Path(shutil.copytree(project, folder / project.name, ignore=ignored))


def build_wheel(project: Path, folder: Path) -> Path:
    """Build the wheel of a project into a new folder, and return it. The build leaves folders in the project."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, folder],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (wheel,) = folder.glob("*.whl")
    return wheel


def needed_by(wheel: Path, extra: str = "") -> list[str]:
    """Return the requirements in the metadata of a wheel, including those of one extra."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    needed = []
    for line in re.findall(r"^Requires-Dist: (.+)$", metadata, re.M):
        marker = Requirement(line).marker
        if marker is None or marker.evaluate({**marker_environment(), "extra": extra}):
            needed.append(line.partition(";")[0].strip())
    return needed
