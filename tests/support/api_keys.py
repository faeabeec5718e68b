"""The command `python -m jobs keys` within the test's process."""

from __future__ import annotations

import argparse
import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from jobs.keys_cli import add_parser


def keys_command(*arguments: str, file: Path | None = None) -> tuple[int, str, str]:
    """Return the exit status, and what is written to stdout and stderr."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    where = ("--file", str(file)) if file else ()
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as error:
        try:
            parsed = parser.parse_args(["keys", *arguments, *where])
            status = parsed.run(parsed)
        except SystemExit as exit_:
            status = exit_.code
    return status, out.getvalue(), error.getvalue()


def add_key(file: Path, name: str, *options: str) -> str:
    """Add a key to the file and return it."""
    status, out, error = keys_command("add", name, *options, file=file)
    assert status == 0, error
    return out.strip()
