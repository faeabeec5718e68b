"""What `make pack-gpu` packs is all that a run imports, apart from the packages that the machine has.

A virtual environment with these packages alone, and a copy of the packed sources, import what a run imports.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import embedded.installation
from scripts import pack_gpu
from scripts.requirements_closure import closure
from tests.support import virtualenvs

LOCK = pack_gpu.ROOT / "requirements.lock"
BENCH = [f"bench.gpu.{path.stem}" for path in sorted((pack_gpu.ROOT / "bench" / "gpu").glob("*.py"))]
# modules that a run starts as processes of their own, or imports only within a function
STARTED = (
    *("bench.__main__", "bench.comparison.original", "bench.comparison.original_process", "embedded.guard"),
    *("gateway.__main__", "gateway.server", "avatar.media.start", "export.formats.torchscript"),
)
BACKENDS = ("onnxruntime", "pytorch")
# Imports modules and models in Triton's way, and prints as JSON why some cannot be imported.
PROBE = """
import json, runpy, sys, types
from importlib import import_module

sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
failures = {}
for name in sys.argv[1:]:
    try:
        runpy.run_path(name) if name.endswith(".py") else import_module(name)
    except (ImportError, SystemExit) as error:
        cause = error.__context__ if isinstance(error, SystemExit) else error
        failures[name] = (getattr(cause, "name", "") or "", str(cause))
print(json.dumps(failures))
"""


def test_a_run_imports_what_is_packed_or_on_the_machine_and_nothing_else(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    pack_gpu.copy_sources(sources)
    models = [path.relative_to(sources) for path in sorted(sources.glob("model_repository/*/1/*.py"))]
    models += [Path("embedded", "backends", name, "model.py") for name in BACKENDS]
    packed = {canonicalize_name(Requirement(line).name) for line in (*pack_gpu.LOCKED, pack_gpu.FFMPEG)}
    installed = {canonicalize_name(each.name) for each in distributions()}  # Python 3.13 has no nvidia-pytriton
    found = packed & installed | closure(pack_gpu.MACHINE)
    lacking: set[str] = set()
    while True:  # with each missing package added, so that the message names all of them
        python = virtualenvs.make(tmp_path / f"venv-{len(lacking)}", found | lacking)
        failures = imported(python, sources, [*BENCH, *STARTED, *map(str, models)])
        missing = distributions_of(name for name, _ in failures.values())
        if not missing - lacking:
            break
        lacking |= missing
    assert not failures, f"{failures}; SOURCES of scripts/pack_gpu.py may lack a package of this project"
    assert not lacking, f"LOCKED of scripts/pack_gpu.py lacks {sorted(lacking)}, and the machine does not have them"


def test_the_versions_in_the_archive_are_those_of_the_lock_for_the_python_of_the_machine() -> None:
    lock = "# exact\na_b==1\nc==3 ; python_version >= '3.13'\nc==2 ; python_version < '3.13'\nd==4\n"
    assert pack_gpu.locked(lock, ("a-b", "c")) == ["a_b==1", "c==2"]
    with pytest.raises(pack_gpu.PackError, match=r"Python 3\.12 of e$"):
        pack_gpu.locked(lock, ("a-b", "e"))


def test_the_numpy_in_the_archive_is_one_that_the_stub_can_read() -> None:
    pins = (Requirement(line) for line in pack_gpu.locked(LOCK.read_text("utf-8")))
    (numpy,) = (pin for pin in pins if pin.name == "numpy")
    embedded.installation.check_numpy(str(numpy.specifier).removeprefix("=="))


def test_no_package_is_both_packed_and_asked_of_the_machine() -> None:
    assert not set(pack_gpu.MACHINE) & set(pack_gpu.LOCKED)


def test_the_page_on_gpus_names_the_packages_of_the_machine() -> None:
    page = (pack_gpu.ROOT / "docs" / "performance" / "gpu.md").read_text("utf-8")
    (sentence,) = re.findall(r"these packages in any version: ([^:]*?)\.\s", page)
    assert re.findall("`(.*?)`", sentence) == list(pack_gpu.MACHINE)


def imported(python: Path, sources: Path, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return which of the modules and files cannot be imported, with the missing module and the message."""
    env = {"PATH": os.defpath, "PYTHONPATH": f"{sources}{os.pathsep}{sources / 'client'}"}
    env["PSYCOPG_IMPL"] = "binary"  # without it psycopg also takes the libpq of this machine
    command = [str(python), "-c", PROBE, *names]
    done = subprocess.run(command, cwd=sources, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    failures: dict[str, tuple[str, str]] = json.loads(done.stdout)
    return failures


def distributions_of(modules: Iterable[str]) -> set[str]:
    """The packages of other projects in this environment that have these modules."""
    known = packages_distributions()
    own = {pack_gpu.PROJECT, f"{pack_gpu.PROJECT}-client"}
    found: set[str] = {
        canonicalize_name(name) for module in modules for name in known.get(module.partition(".")[0], ())
    }
    return found - own
