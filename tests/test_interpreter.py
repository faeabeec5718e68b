"""A program that is started by a Python without its packages says which Python has them."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

import pytest

from lipsync.interpreter import explain_missing

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


@pytest.mark.parametrize("program", ["bench", "demo", "embedded", "export", "gateway"])
def test_a_foreign_python_is_told_and_gets_no_traceback(bare_python: Path, program: str) -> None:
    done = subprocess.run([bare_python, "-m", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"python -m {program}: this Python ({bare_python}) does not have the package ")
    own = "use .venv/bin/python -m " + program
    assert line.endswith(own if (ROOT / ".venv/bin/python").exists() else "makes an environment that has it in .venv")


def test_a_missing_module_of_ours_stays_a_defect() -> None:
    with pytest.raises(ModuleNotFoundError):
        explain_missing("export", ModuleNotFoundError("no", name="export.absent"))
