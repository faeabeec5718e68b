"""The command `avatar`; see `avatar --help`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType
from typing import NoReturn

from . import _completion, _doctor, _jobs_cli, _live_cli, _options_cli, _preview, _render_cli
from ._cli_parser import FAILED, STATUS_TABLE, VARIABLE_TABLE, WRONG_USAGE, Formatter, Parser, UsageError
from ._console import CANCELLED, FILE, USAGE, Console, Failure
from ._errors import AvatarClientError, Unavailable
from ._files import is_stdout


class _Stopped(BaseException):
    """A signal ended the command. Like KeyboardInterrupt, it passes through every `finally`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when done, 1 when it failed, 2 for wrong usage, 128 + the number of a signal."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        options = _parser().parse_args(arguments)
    except UsageError as error:
        _exit_with_usage(error, Console(as_json="--json" in arguments, stdout_is_data="-" in arguments))
    # our error messages already contain what gRPC would log about connections
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    console = Console(
        as_json=options.json,
        progress=not options.no_progress,
        stdout_is_data=is_stdout(getattr(options, "out", None) or ""),
    )
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # the cleanup that follows must not be interrupted
        stopped.append(number)
        raise _Stopped

    # SIGINT, too: a shell's `&` starts commands with SIGINT ignored
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, stop)
        return _run(options, console)
    except _Stopped:
        console.fail(Failure(CANCELLED, "cancelled", 499))
        return 128 + stopped[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(options: argparse.Namespace, console: Console) -> int:
    """Run the chosen command; its errors become output, and the exit status."""
    try:
        status: int = options.run(options, console)
    except UsageError as error:
        _exit_with_usage(error, console)
    except AvatarClientError as error:
        failure = Failure.of(error)
        if isinstance(error, Unavailable) and "cannot be reached" in failure.detail and options.command != "doctor":
            hint = "; is it running? `avatar doctor` shows what answers"
            failure = replace(failure, detail=failure.detail + hint)
        console.fail(failure)
        return FAILED
    except ValueError as error:  # a URL without a host, or a key that is none
        console.fail(Failure(USAGE, str(error)))
        return WRONG_USAGE
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        console.fail(Failure(FILE, reason))
        return FAILED
    return status


def _exit_with_usage(error: UsageError, console: Console) -> NoReturn:
    """Print what is wrong with the command line, and exit with 2."""
    if console.as_json:
        console.fail(Failure(USAGE, error.message))
    else:
        error.parser.print_usage(sys.stderr)
        print(f"{error.parser.prog}: error: {error.message}", file=sys.stderr)
    raise SystemExit(WRONG_USAGE)


def _parser() -> Parser:
    from . import __version__

    parser = Parser(
        prog="avatar",
        description="Render videos of a speaking face with the talking-avatar service: at once, or as jobs.",
        epilog=f"`avatar COMMAND --help` explains a command.\n\n{VARIABLE_TABLE}\n\n{STATUS_TABLE}",
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=f"avatar {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    _render_cli.add_command(commands)
    _jobs_cli.add_commands(commands)
    _live_cli.add_command(commands)
    _preview.add_command(commands)
    _options_cli.add_command(commands)
    _doctor.add_command(commands)
    _completion.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
