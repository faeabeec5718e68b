"""The scripts of `avatar completion`: they are those of the parser, and bash completes with them."""

from __future__ import annotations

import argparse
import shlex
import subprocess

import pytest

from avatar_client import _cli, _completion
from scripts import client_completion

PARSER = _cli._parser()
(COMMANDS,) = (action.choices for action in PARSER._actions if isinstance(action, argparse._SubParsersAction))


def test_the_scripts_are_up_to_date() -> None:
    assert client_completion.outdated() == [], f"write them by {client_completion.COMMAND}"


@pytest.mark.parametrize("shell", _completion.SHELLS)
def test_the_command_prints_the_script_of_a_shell(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _cli.main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert printed == _completion.script(shell)
    assert all(name in printed for name in COMMANDS)
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert _cli.main(["completion"]) == 0
    assert capsys.readouterr().out == printed


def test_another_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/other")
    with pytest.raises(SystemExit) as end:
        _cli.main(["completion"])
    assert end.value.code == 2
    assert "give the shell, one of bash, zsh, fish" in capsys.readouterr().err


def completed(line: str) -> set[str]:
    """Return what bash offers at the end of a line."""
    words = line.split(" ")
    script = f"""
        {_completion.script("bash")}
        COMP_WORDS=({" ".join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}
        COMP_LINE={shlex.quote(line)}; COMP_POINT={len(line)}
        _shtab_avatar
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"}
    )
    return set(done.stdout.split())


def test_bash_completes_commands_options_values_and_files() -> None:
    assert completed("avatar ") >= COMMANDS.keys()
    assert completed("avatar re") == {"render"}
    assert completed("avatar submit --pri") == {"--priority"}
    assert completed("avatar submit --priority b") == {"batch"}
    assert completed("avatar render a b --set bl") == {"blend="}
    assert completed(f"avatar keep {__file__[:-4]}") >= {__file__}
