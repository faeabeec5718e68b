"""Every command in the documents exists and accepts its flags."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import warnings

import pytest

from avatar_client import _cli
from bench import __main__ as bench
from tests.docs.pages import COMMANDS, PAGES, ROOT, python_commands

PYTHON = python_commands()


def _help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the help of a command, which it prints only if it accepts the words before `--help`.

    The command runs as with `python -m`, but in this process, because imports take seconds; only pytest has its own.
    """
    module, *words = command
    words = [word for word in words if word not in ("--help", "DIR", "N")] + ["--help"]
    if module == "pytest":
        return subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, check=True).stdout
    monkeypatch.setattr(sys, "argv", [module, *words])
    monkeypatch.chdir(ROOT)
    with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
        # a module that a test has imported runs once more
        warnings.filterwarnings("ignore", ".* found in sys.modules after import of package", RuntimeWarning)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    output = capsys.readouterr()
    assert not end.value.code, output.err
    return output.out


@pytest.mark.parametrize("command", PYTHON, ids=" ".join)
def test_a_python_command_accepts_its_flags(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if command[0] == "bench" and command[1:] and not command[1].startswith("-"):
        assert command[1] in bench.COMMANDS
    output = _help(command, capsys, monkeypatch)
    for flag in (word for word in command if word.startswith("--")):
        assert re.search(rf"{flag}\b", output), flag


def test_the_python_commands_are_found() -> None:
    modules = {command[0] for command in PYTHON}
    assert {"export", "embedded", "gateway", "bench", "tests.support.fuzzing"} <= modules
    benches = {command[1] for command in PYTHON if command[0] == "bench" and command[1:]}
    assert set(bench.COMMANDS) - {"compare"} <= benches


def test_every_flag_of_the_export_is_documented(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {("export", "models"): "docs/guide/export.md", ("export", "weights"): "docs/guide/weights.md"}
    for command, page in pages.items():
        for flag in re.findall(r"^  (--[a-z-]+)", _help(command, capsys, monkeypatch), re.M):
            assert flag in PAGES[page], flag


AVATAR = [(page, words[1:]) for page, words in COMMANDS if words[0] == "avatar"]


@pytest.mark.parametrize(("page", "words"), AVATAR, ids=[f"{page}: {' '.join(words)}" for page, words in AVATAR])
def test_an_avatar_command_accepts_its_flags(page: str, words: list[str]) -> None:
    _cli._parser().parse_args(words)


def test_avatar_commands_are_found_on_every_page_that_has_them() -> None:
    named = {page for page, text in PAGES.items() if re.search(r"^ *avatar render", text, re.M)}
    assert {page for page, _ in AVATAR} == named >= {"README.md", "client/README.md", "docs/guide/python-client.md"}
