"""The parser of the command: help that fits narrow terminals, errors as exceptions, and what commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import NoReturn, TypeAlias

from . import _cli_types as cli
from ._console import Console
from ._jobs import KEY_VARIABLE
from .access import FILE_VARIABLE, TOKEN_VARIABLE

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"
Run = Callable[[argparse.Namespace, Console], int]

SERVER, GATEWAY = f"127.0.0.1:{cli.GRPC_PORT}", f"http://127.0.0.1:{cli.GATEWAY_PORT}"
SERVER_VARIABLE, URL_VARIABLE = "AVATAR_SERVER", "AVATAR_URL"
DONE, FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
STATUSES = {
    DONE: "done",
    FAILED: "failed; one line says why",
    WRONG_USAGE: "wrong usage",
    INTERRUPTED: "stopped by Ctrl-C",
    TERMINATED: "stopped by SIGTERM",
}
VARIABLES = {
    SERVER_VARIABLE: "in place of --server",
    URL_VARIABLE: "in place of --url",
    KEY_VARIABLE: "the API key of the gateway",
    TOKEN_VARIABLE: "Triton's, for shared memory",
    FILE_VARIABLE: "a file with that token",
    "NO_COLOR": "if set, no colors",
}


class UsageError(Exception):
    """The command line is wrong."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        super().__init__(message)
        self.parser, self.message = parser, message


class Formatter(argparse.HelpFormatter):
    """Wraps sentences to the width of the terminal, and keeps paragraphs and the lines of tables."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Return paragraphs, which empty lines separate; of a table each line is indented."""
        paragraphs = [
            paragraph if "\n  " in paragraph else super(Formatter, self)._fill_text(paragraph, width, indent)
            for paragraph in text.split("\n\n")
        ]
        return "\n\n".join(paragraphs)


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(self, message)


def table(title: str, rows: dict[str, str]) -> str:
    """Return a table for an epilog."""
    width = max(map(len, rows))
    return "\n".join([f"{title}:", *(f"  {name:<{width}}  {text}" for name, text in rows.items())])


STATUS_TABLE = table("exit status", {str(status): text for status, text in STATUSES.items()})
VARIABLE_TABLE = table("variables", VARIABLES)


def add_command(
    commands: Subparsers,
    name: str,
    text: str,
    run: Run,
    *,
    description: str = "",
    epilog: str = "",
    progress: bool = False,
) -> Parser:
    """Add a command.

    Args:
        commands: of `avatar`.
        name: of the command.
        text: one line for the list of commands.
        run: gets the options and the output, and returns the exit status.
        description: more than `text`, for its own help.
        epilog: what follows the options in its help, before the table of the exit statuses.
        progress: whether it shows progress, which `--no-progress` switches off.
    """
    parser = commands.add_parser(
        name,
        help=text,
        description=description or f"{text[0].upper()}{text[1:]}.",
        epilog="\n\n".join(filter(None, (epilog, STATUS_TABLE))),
        formatter_class=Formatter,
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result, or the error, as one JSON object; no progress"
    )
    if progress:
        parser.add_argument("--no-progress", action="store_true", help="do not show the progress")
    parser.set_defaults(run=run, parser=parser, no_progress=not progress)
    return parser


def add_server(parser: argparse._ActionsContainer) -> None:
    """Add `--server`; `server_of` reads it."""
    text = f"Triton's gRPC, or several, separated by commas (default {SERVER_VARIABLE} or {SERVER})"
    parser.add_argument("--server", type=cli.address, metavar="HOST[:PORT]", help=text)


def add_url(parser: argparse._ActionsContainer, text: str = "the gateway") -> None:
    """Add `--url`; `url_of` reads it."""
    parser.add_argument(
        "--url",
        type=cli.url,
        help=f"{text} (default {URL_VARIABLE} or {GATEWAY}); the API key is that of the variable {KEY_VARIABLE}",
    )


def add_timeout(parser: Parser, default: float, text: str = "") -> None:
    """Add `--timeout`; its value is None if it was not given and `text` explains several defaults."""
    parser.add_argument(
        "--timeout",
        type=cli.seconds,
        default=None if text else default,
        metavar="SECONDS",
        help=f"give up after this time without a response (default {default:g}{text})",
    )


def server_of(options: argparse.Namespace) -> str:
    """Return the address of Triton: of the option, the variable, or the default. Raises ValueError."""
    return options.server or variable(SERVER_VARIABLE, cli.address) or SERVER


def url_of(options: argparse.Namespace) -> str:
    """Return the URL of the gateway: of the option, the variable, or the default. Raises ValueError."""
    return options.url or variable(URL_VARIABLE, cli.url) or GATEWAY


def variable(name: str, convert: Callable[[str], str]) -> str | None:
    """Return the value of an environment variable; None if it is not set. Raises ValueError for a wrong one."""
    text = os.environ.get(name, "").strip()
    try:
        return convert(text) if text else None
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
