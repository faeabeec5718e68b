"""Pack what `make bench-gpu` needs on a bare machine with a GPU into one archive: `python -m scripts.pack_gpu`.

Such a machine has Python 3.12, PyTorch with CUDA, the other packages of `MACHINE`, and no network. The archive
holds the sources, the packages that it lacks, Triton (without symbols and without data that it never reads), a static
ffmpeg, and a Python with a shared library, for machines whose own has none. Weights are generated there.

Left out, because of their size: OpenVINO, onnxruntime-gpu and TensorRT. `bench gpu` records what it cannot measure.
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lipsync import __version__

from . import elf_sections
from .requirements_closure import marker_environment

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "talking-avatar"  # its name in pyproject.toml
NAME = "talking-avatar-gpu"  # folder in the archive
MAX_BYTES = 60_000_000
PYTHON = "3.12"  # of the machine
SOURCES = (
    *("avatar", "bench", "client/avatar_client", "demo", "embedded", "export", "gateway", "jobs", "lipsync"),
    *("model_repository", "samples", "tests/golden/s3fd.npz", "tests/golden/wav2lip.npz", "pyproject.toml", "LICENSE"),
)
NOT_NEEDED = ("bench/perf/", "samples/portrait.png")  # requests of perf_analyzer, and the portrait of the demo
SETUP = ROOT / "scripts" / "bench_gpu.sh"
# Versions of requirements.lock. Triton's stub needs numpy 1; the others are not there.
LOCKED = (
    *("annotated-doc", "annotated-types", "cffi", "croniter", "fastapi", "numpy", "nvidia-pytriton", "obstore"),
    *("opentelemetry-api", "pgqueuer", "psycopg", "psycopg-binary", "psycopg-pool", "pydantic", "pydantic-settings"),
    *("pydantic_core", "python-dotenv", "python-multipart", "python-rapidjson", "soundfile", "soxr", "sse-starlette"),
    *("standardwebhooks", "starlette", "threadpoolctl", "tritonclient", "typing-inspection", "typing_extensions"),
    *("uvicorn", "websockets"),
)
# The machine has these packages, in whatever version, and those that they need; docs/performance/gpu.md names them.
MACHINE = (
    *("torch", "onnx", "onnxruntime", "opencv-python-headless", "matplotlib", "pillow", "grpcio", "protobuf", "httpx"),
    *("prometheus-client", "psutil", "click", "tabulate"),
)
FFMPEG = "imageio-ffmpeg==0.6.0"  # ffmpeg 7.0; the binary of newer wheels is twice as large
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (35, 34, 28, 27, 24, 17, 5)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64"]
# patterns of the parts of the wheels that nothing here uses, and of parts that are kept in spite of them
UNUSED = (
    *("*/tests/*", "*.data/data/*", "*.data/scripts/*", "*.h", "*.a", "*.pyi", "*.pyx", "*.pxd", "numpy/f2py/*"),
    *("numpy/distutils/*", "numpy/core/_simd.*", "*.dist-info/RECORD", "*.dist-info/sboms/*"),
    *("pytriton/*.py", "*/python_backend_stubs/*", "nvidia_pytriton.libs/libpython3-*"),
)
KEPT = ("pytriton/__init__.py", "pytriton/tritonserver/backends/*", f"*/python_backend_stubs/{PYTHON}/*")
EMPTIED = {"libicudata": ".rodata"}  # character sets of ICU, for a reader of archives that Triton never uses
# parts of a Python's standard library that nothing here uses
STDLIB_UNUSED = (
    *("test", "config-*", "site-packages", "idlelib", "ensurepip", "lib2to3", "pydoc_data", "tkinter", "turtledemo"),
    *("__pycache__", "*test*.so", "_codecs_*", "_tkinter*", "xx*.so"),
)


class PackError(Exception):
    """The archive cannot be made; the message gives the reason."""


def main() -> int:
    """Make the archive; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.pack_gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / f"{NAME}.tar.xz", help="the archive")
    parser.add_argument(
        "--packages-only", action="store_true", help="leave the sources out, for a machine that has a checkout"
    )
    parser.add_argument(
        "--preset", type=int, default=9, choices=range(10), help="of xz (default: 9, four minutes of one core)"
    )
    args = parser.parse_args()
    work = ROOT / "build" / "pack-gpu"
    try:
        size = pack(args.out, work, args.preset, with_sources=not args.packages_only)
    except (PackError, OSError, subprocess.CalledProcessError) as error:
        print(f"pack-gpu: {error}", file=sys.stderr)
        return 1
    script = "scripts/bench_gpu.sh" if args.packages_only else f"{NAME}/bench-gpu.sh"
    where = "in the checkout there" if args.packages_only else "there"
    print(f"pack-gpu: {args.out}, {size / 1e6:.1f} MB\n{where}: tar xf {args.out.name} && sh {script}")
    return 0


def pack(out: Path, work: Path, preset: int, *, with_sources: bool = True) -> int:
    """Make the archive `out` in the folder `work`; return its size in bytes.

    Without the sources, the packages are at the root of the archive.

    Raises:
        PackError: it is larger than `MAX_BYTES`.
    """
    stage = work / NAME
    shutil.rmtree(stage, ignore_errors=True)
    if with_sources:
        copy_sources(stage)
        shutil.copyfile(SETUP, stage / "bench-gpu.sh")
    for wheel in download(work / "wheels"):
        unpack(wheel, stage / "site")
    add_metadata(stage / "site")
    if python := find_python():
        copy_python(python, stage / "python")
    else:
        print(f"pack-gpu: left out: a Python {PYTHON}, since there is none with a shared library on this machine")
    for path in sorted(stage.rglob("*")):
        if path.is_file() and not path.is_symlink():
            also = next((section for name, section in EMPTIED.items() if path.name.startswith(name)), "")
            elf_sections.shrink(path, also)
    out.parent.mkdir(parents=True, exist_ok=True)
    compress(stage, Path(NAME if with_sources else "."), out, preset)
    size = out.stat().st_size
    if size > MAX_BYTES:
        raise PackError(f"{out}: {size / 1e6:.1f} MB, but at most {MAX_BYTES / 1e6:.0f} MB are allowed")
    return size


def copy_sources(stage: Path) -> None:
    """Copy the files that git tracks, or does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SOURCES]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if not name.startswith(NOT_NEEDED) and (ROOT / name).is_file():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, stage / name)


def locked(lock: str, names: Sequence[str] = LOCKED) -> list[str]:
    """Return the lines of a lock for these packages and the machine's Python, without their markers.

    Raises:
        PackError: the lock has no version of one of them, or several.
    """
    markers = {**marker_environment(), "python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    found: dict[str, list[str]] = {canonicalize_name(name): [] for name in names}
    for requirement in (Requirement(line) for line in lock.splitlines() if not line.startswith("#")):
        versions = found.get(canonicalize_name(requirement.name))
        if versions is not None and (requirement.marker is None or requirement.marker.evaluate(markers)):
            versions.append(f"{requirement.name}{requirement.specifier}")
    if wrong := [name for name, versions in found.items() if len(versions) != 1]:
        raise PackError(f"the lock does not have exactly one version for Python {PYTHON} of {', '.join(wrong)}")
    return [version for (version,) in found.values()]


def download(folder: Path) -> list[Path]:
    """Download the wheels for the machine's Python; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in folder.glob("*.whl"):
        wheel.unlink()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp", "--dest", str(folder)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run([*command, *locked((ROOT / "requirements.lock").read_text("utf-8")), FFMPEG], check=True)
    return sorted(folder.glob("*.whl"))


def unpack(wheel: Path, site: Path) -> None:
    """Unpack what is used of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = entry.filename
            unused = any(fnmatch(name, each) for each in UNUSED) and not any(fnmatch(name, each) for each in KEPT)
            if entry.is_dir() or unused:
                continue
            before, data, after = name.partition(".data/")  # where wheels keep what is not at their root: in *lib
            target = site / (after.partition("/")[2] if data else before)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(entry))
            target.chmod((entry.external_attr >> 16) & 0o777 or 0o644)


def add_metadata(site: Path) -> None:
    """Add what an installation of this project would leave: the gateway reads its version there."""
    folder = site / f"{PROJECT.replace('-', '_')}-{__version__}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {__version__}\n", "utf-8")


def find_python() -> Path | None:
    """Return the prefix of a Python of the machine's version with a shared library, as pyenv and uv install them."""
    places = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    places.append(Path.home() / ".local" / "share" / "uv" / "python")
    found = [path for place in places for path in sorted(place.glob(f"*{PYTHON}*"))]
    return next((path for path in found if (path / "lib" / f"libpython{PYTHON}.so.1.0").is_file()), None)


def copy_python(prefix: Path, target: Path) -> None:
    """Copy a Python: its program, its shared library, and what is used of its standard library."""
    library = Path("lib") / f"python{PYTHON}"
    shutil.copytree(prefix / library, target / library, ignore=shutil.ignore_patterns(*STDLIB_UNUSED))
    (target / "bin").mkdir()
    for name in (f"bin/python{PYTHON}", f"lib/libpython{PYTHON}.so.1.0"):
        shutil.copy(prefix / name, target / name)


def compress(stage: Path, name: Path, out: Path, preset: int) -> None:
    """Write the folder as `name` in a tar file, compressed by xz with its filter for x86-64 programs."""
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": preset | lzma.PRESET_EXTREME}]
    # files of the same kind next to each other are compressed better
    paths = sorted(stage.rglob("*"), key=lambda path: (not path.is_dir(), path.suffix, path.name, str(path)))
    with (
        lzma.open(out, "wb", format=lzma.FORMAT_XZ, filters=filters) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for path in paths:
            archive.add(path, name / path.relative_to(stage), recursive=False, filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


if __name__ == "__main__":
    sys.exit(main())
