"""The command `avatar doctor`: what this machine is able to do, and whether the servers are there."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, replace

from ._cli_parser import (
    DONE,
    FAILED,
    SERVER_VARIABLE,
    URL_VARIABLE,
    Subparsers,
    add_server,
    add_timeout,
    add_url,
    server_of,
    url_of,
)
from ._cli_parser import add_command as add
from ._console import GREEN, PROBLEM_FOUND, RED, YELLOW, Console, Failure, Style
from ._doctor_checks import (
    OK,
    PROBLEM,
    WARNING,
    Check,
    check_client,
    check_ffmpeg,
    check_gpu,
    check_preview,
)
from ._doctor_gateway import check_gateway
from ._doctor_triton import check_triton
from ._jobs import key_of
from ._rotation import addresses_of

_SECONDS = 5.0
_COLORS = {OK: GREEN, WARNING: YELLOW, PROBLEM: RED}
_NAME_WIDTH, _LEVEL_WIDTH = 9, 8


def add_command(commands: Subparsers) -> None:
    """Add the command to the parser of `avatar`."""
    command = add(
        commands,
        "doctor",
        "check this machine, the gateway and Triton",
        _doctor,
        description="Check what this machine is able to do, whether the gateway and Triton are there and ready, and "
        "what they serve. Each check is ok, a warning or a problem, with what to do.",
        epilog="A server that was not named and does not answer is a warning, if the other one answers. The exit "
        "status is 1 if there is a problem; warnings do not change it.",
    )
    add_server(command)
    add_url(command)
    add_timeout(command, _SECONDS)


def _doctor(options: argparse.Namespace, console: Console) -> int:
    checks = _settled(list(_checks(options)), named=_named(options))
    problems = [check.name for check in checks if check.level == PROBLEM]
    warnings = [check.name for check in checks if check.level == WARNING]
    failure = Failure(PROBLEM_FOUND, f"problems: {', '.join(problems)}") if problems else None
    document = {
        "ok": not problems,
        "problems": len(problems),
        "checks": [asdict(check) for check in checks],
    }
    counts = f"{len(problems) or 'no'} problem{'s' * (len(problems) != 1)}, {len(warnings) or 'no'} warning"
    lines = [*(_lines(check, Style(sys.stdout)) for check in checks), f"{counts}{'s' * (len(warnings) != 1)}"]
    console.result(document, "\n".join(lines), failure)
    return FAILED if problems else DONE


def _named(options: argparse.Namespace) -> tuple[bool, bool]:
    """Return whether the caller has named a gateway, and a Triton."""
    environment = os.environ.get
    return bool(options.url or environment(URL_VARIABLE)), bool(options.server or environment(SERVER_VARIABLE))


def _checks(options: argparse.Namespace) -> Iterator[Check]:
    yield check_client()
    yield check_preview()
    yield check_ffmpeg()
    yield check_gpu()
    url_named, server_named = _named(options)
    yield from check_gateway(url_of(options), key_of(None), options.timeout, required=url_named)
    for address in addresses_of(server_of(options)):
        yield from check_triton(address, options.timeout, required=server_named)


def _settled(checks: list[Check], named: tuple[bool, bool]) -> list[Check]:
    """Return the checks; that no server answers is a problem, also where none was named."""
    absent = [check for check in checks if check.details.get("live") is False]
    servers = [check for check in checks if "live" in check.details]
    if any(named) or len(absent) < len(servers):
        return checks
    return [replace(each, level=PROBLEM) if each in absent else each for each in checks]


def _lines(check: Check, style: Style) -> str:
    """Return a check for a person, wrapped to the width of the terminal."""
    width = max(40, shutil.get_terminal_size().columns)
    indent = " " * (_LEVEL_WIDTH + _NAME_WIDTH)
    head = f"{check.level:<{_LEVEL_WIDTH}}{check.name:<{_NAME_WIDTH}}"
    text = textwrap.fill(head + check.text, width, subsequent_indent=indent, break_on_hyphens=False)
    colored = style(check.level, _COLORS[check.level]) + text[len(check.level) :]
    if not check.remedy:
        return colored
    remedy = textwrap.fill(
        f"-> {check.remedy}",
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}   ",
        break_on_hyphens=False,
    )
    return f"{colored}\n{remedy}"
