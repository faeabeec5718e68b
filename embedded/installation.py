"""Find the server's installation, and check that this machine can run it.

Only the standard library is imported: `scripts/setup.sh` uses this module before any package is installed.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import util
from importlib.metadata import version
from pathlib import Path

from .errors import MissingDependency

MIN_GLIBC = (2, 35)
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Installation:
    """The paths of the server's parts.

    Attributes:
        server: the `tritonserver` binary.
        backend: folder of the Python backend (a shared library and a Python module).
        stub: the process that runs Python models, for the running Python version.
        libraries: shared libraries that come with the wheel.
        libpython: folder of the running Python's own shared library.
    """

    server: Path
    backend: Path
    stub: Path
    libraries: Path
    libpython: Path


def find_installation() -> Installation:
    """Return the paths of everything that a start needs.

    Raises:
        MissingDependency: names the first missing part, and the command that installs it.
    """
    libpython = check_machine()
    check_numpy(version("numpy"))
    site = _site_packages()
    triton = site / "pytriton" / "tritonserver"
    return Installation(
        server=_file(triton / "bin" / "tritonserver"),
        backend=triton / "backends" / "python",
        stub=_file(triton / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"),
        libraries=site / "nvidia_pytriton.libs",
        libpython=libpython,
    )


def check_machine() -> Path:
    """Check what pip cannot install, and return the folder of the running Python's shared library.

    Raises:
        MissingDependency: names the first missing part, and the command that installs it.
    """
    check_platform(platform.system(), platform.machine(), platform.libc_ver())
    return find_libpython(_libpython_folders())


def check_numpy(installed: str) -> None:
    """Raise MissingDependency if the wheel's stub cannot read the arrays of this numpy.

    The stub was built for numpy 1, in which an array's description has another layout: with numpy 2 the outputs of
    Python models arrive empty.
    """
    if int(installed.partition(".")[0]) >= 2:
        raise MissingDependency(
            f"the Python models of the Triton wheel need numpy 1, this is numpy {installed} on Python {PYTHON}; "
            "use Python 3.11 or 3.12, or Triton's container"
        )


def check_platform(system: str, machine: str, libc: tuple[str, str]) -> None:
    """Raise MissingDependency if the wheel's binaries cannot run on this system."""
    if (system, machine) != ("Linux", "x86_64"):
        raise MissingDependency(f"the Triton wheel supports Linux x86-64 only, this is {system} {machine}; use Docker")
    name, release = libc
    numbers = tuple(int(part) for part in release.split(".")[:2] if part.isdigit())
    if name != "glibc" or numbers < MIN_GLIBC:
        raise MissingDependency(
            f"the Triton wheel needs glibc 2.35 or newer, this is {name or 'another libc'} {release}; "
            "use Debian 12, Ubuntu 22.04 or newer, or Docker"
        )


def find_libpython(folders: Iterable[Path]) -> Path:
    """Return the first of the folders that holds the running Python's shared library.

    It must be the library of the running Python: with another build of the same version (Debian's in place of a
    pyenv one) the stub crashes in the standard library.

    Raises:
        MissingDependency: no folder holds it.
    """
    name = f"libpython{PYTHON}.so.1.0"
    for folder in folders:
        if (folder / name).is_file():
            return folder
    raise MissingDependency(f"{name}, the shared library of {sys.executable}, is missing: {_install_libpython()}")


def _libpython_folders() -> list[Path]:
    library = Path(sysconfig.get_config_var("LIBDIR") or "")
    architecture = sysconfig.get_config_var("MULTIARCH") or ""
    # the last folder is for a relocated Python, whose LIBDIR is still the folder in which it was built
    return [library, library / architecture, Path(sys.base_prefix) / "lib"]


def _install_libpython() -> str:
    if sys.base_prefix == "/usr":
        return f"apt-get install libpython{PYTHON}  (Fedora: dnf install python{PYTHON}-libs)"
    if ".pyenv" in Path(sys.base_prefix).parts or "PYENV_ROOT" in os.environ:
        return f'PYTHON_CONFIGURE_OPTS="--enable-shared" pyenv install --force {platform.python_version()}'
    return f"use a Python that was built with --enable-shared, such as the one from `uv python install {PYTHON}`"


def _site_packages() -> Path:
    spec = util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise MissingDependency("NVIDIA's Triton wheel is missing: pip install 'nvidia-pytriton==0.7.0'")
    return Path(spec.origin).parents[1]


def _file(path: Path) -> Path:
    if not path.is_file():
        raise MissingDependency(f"{path} is missing: pip install --force-reinstall --no-deps 'nvidia-pytriton==0.7.0'")
    return path
