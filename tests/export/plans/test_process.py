"""Programs that run for minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from export.errors import ExportError
from export.plans import process


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def test_its_last_lines_are_returned_and_it_runs_in_the_folder(tmp_path: Path) -> None:
    lines = process.run(python("import os; print('one'); print(os.getcwd())"), tmp_path, 60)
    assert lines == ["one", str(tmp_path)]


def test_progress_shows_the_last_line(tmp_path: Path) -> None:
    seen: list[str] = []
    code = "import time; print('timing kernels'); time.sleep(1)"
    process.run(python(code), tmp_path, 60, lambda seconds, line: seen.append(line), progress_seconds=0.1)
    assert "timing kernels" in seen


def test_a_program_that_takes_too_long_is_killed_and_its_last_lines_are_shown(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"did not end within 0\.5 s and was killed"):
        process.run(python("import time; time.sleep(600)"), tmp_path, 0.5)


def test_a_failure_shows_the_status_and_the_last_lines(tmp_path: Path) -> None:
    code = "import sys; [print('line', n) for n in range(500)]; sys.exit(3)"
    with pytest.raises(
        ExportError, match=r"failed with status 3; its last lines:\n    line 488(\n    line \d+)+$"
    ) as raised:
        process.run(python(code), tmp_path, 60)
    assert "line 487" not in str(raised.value)


def test_the_out_of_memory_killer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="killed by the kernel, probably for lack of memory"):
        process.run(python("import os; os.kill(os.getpid(), 9)"), tmp_path, 60)
    with pytest.raises(ExportError, match="ended by signal 6"):
        process.run(python("import os; os.kill(os.getpid(), 6)"), tmp_path, 60)


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="trtexec cannot be started: No such file"):
        process.run([str(tmp_path / "trtexec")], tmp_path, 60)
