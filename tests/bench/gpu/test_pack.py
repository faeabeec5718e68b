"""`make pack-gpu`: what goes into the archive."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import _cffi_backend  # type: ignore[import-untyped]

import lipsync
from scripts import elf_sections, pack_gpu


def test_a_library_without_symbols_still_loads(tmp_path: Path) -> None:
    library = tmp_path / Path(_cffi_backend.__file__).name
    shutil.copyfile(_cffi_backend.__file__, library)
    size = library.stat().st_size
    elf_sections.shrink(library)
    after = library.read_bytes()
    assert len(after) == size
    emptied = [each for each in elf_sections.sections(after) if not each.mapped and each.name != ".shstrtab"]
    assert emptied
    assert all(not any(after[each.offset : each.offset + each.size]) for each in emptied)
    code = "import _cffi_backend; print(_cffi_backend.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{library}\n"


def test_a_file_that_is_no_library_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("#!/bin/sh\n")
    elf_sections.shrink(path)
    assert path.read_text() == "#!/bin/sh\n"


def test_a_wheel_is_unpacked_without_what_nothing_uses(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    stubs = "pytriton/tritonserver/python_backend_stubs"
    names = {
        "a/__init__.py": True,
        "a/tests/test_a.py": False,
        "a-1.dist-info/METADATA": True,
        "a-1.dist-info/RECORD": False,
        "b-1.data/purelib/b/__init__.py": True,
        "b-1.data/data/bin/perf_analyzer": False,
        f"{stubs}/3.11/triton_python_backend_stub": False,
        f"{stubs}/3.12/triton_python_backend_stub": True,
        "pytriton/__init__.py": True,
        "pytriton/client/client.py": False,
        "pytriton/tritonserver/backends/python/triton_python_backend_utils.py": True,
        "nvidia_pytriton.libs/libpython3-419a3a08.13.so.1.0": False,
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    pack_gpu.unpack(wheel, tmp_path / "site")
    found = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*") if path.is_file()}
    assert found == {name.replace("b-1.data/purelib/", "") for name, used in names.items() if used}


def test_the_project_looks_installed_on_the_machine(tmp_path: Path) -> None:
    pack_gpu.add_metadata(tmp_path)
    (found,) = distributions(path=[str(tmp_path)])
    assert (found.name, found.version) == ("talking-avatar", lipsync.__version__)


def test_the_data_in_the_archive_is_all_that_a_run_reads(tmp_path: Path) -> None:
    pack_gpu.copy_sources(tmp_path)
    files = ("tests/golden/wav2lip.npz", "tests/golden/s3fd.npz", "samples/face.png", "samples/speech.wav")
    assert all((tmp_path / file).is_file() for file in files)
    assert not (tmp_path / "bench" / "perf").exists()
