"""The page of the command `avatar` names every command, argument, variable, status and code that there is."""

from __future__ import annotations

import argparse
import re

from avatar_client import _cli, _cli_parser, _console
from tests.docs.pages import PAGES

PAGE = PAGES["docs/guide/commands.md"]
(COMMANDS,) = (action.choices for action in _cli._parser()._actions if isinstance(action, argparse._SubParsersAction))


def section(title: str) -> str:
    """Return the text between a title and the next one."""
    _, _, rest = PAGE.partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0]


def first_column(text: str) -> list[str]:
    """Return the words in the first cells of the tables."""
    cells = re.findall(r"^\| (.*?) \|", text, re.M)
    return [word.strip("`") for cell in cells for word in cell.split("`, `") if "`" in cell or word.isdecimal()]


def test_every_command_is_in_the_first_table() -> None:
    assert first_column(PAGE.partition("\n## ")[0]) == [f"avatar {name}" for name in COMMANDS]


def test_every_argument_is_in_the_table_with_the_commands_that_take_it() -> None:
    rows = dict(re.findall(r"^\| (`-.*?`) \| (.*?) \|", section("Arguments"), re.M))
    documented = {re.findall(r"--[a-z-]+", cell)[0]: commands for cell, commands in rows.items()}
    taken: dict[str, set[str]] = {}
    for name, parser in COMMANDS.items():
        for action in parser._actions:
            for flag in action.option_strings:
                if flag.startswith("--") and flag != "--help":
                    taken.setdefault(flag, set()).add(name)
    assert documented.keys() == taken.keys()
    for flag, text in documented.items():
        named = set(re.findall(r"`([a-z]+)`", text))
        everything = set(COMMANDS) - named if text.startswith("all") else named
        assert everything == taken[flag], flag


def test_the_variables_and_statuses_are_those_of_the_help() -> None:
    assert first_column(section("Variables")) == list(_cli_parser.VARIABLES)
    assert first_column(section("Exit status")) == [str(status) for status in _cli_parser.STATUSES]


def test_every_code_of_an_error_is_documented() -> None:
    codes = section("JSON").partition("| code | meaning |")[2]
    assert sorted(first_column(codes)) == sorted(_console.CODES)
