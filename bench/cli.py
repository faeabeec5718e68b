"""What the commands share: exit statuses, argument types, signal handling."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Protocol

from tritonclient.utils import InferenceServerException

from demo.errors import DemoError
from embedded.errors import EmbeddedError
from export.errors import ExportError

from .errors import BenchError, UsageError
from .paths import OUT

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
STATUS = "Exit status: 0 done (a missed goal is only printed), 1 something failed, 2 wrong usage, 130 ended by Ctrl-C."
# Errors that end a command, or a part of it, with a message; any other exception is a defect.
FAILURES = (BenchError, DemoError, EmbeddedError, ExportError, InferenceServerException, OSError, ValueError)


class Command(Protocol):
    """A module that implements one command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return its exit status; raises UsageError and FAILURES."""


def execute(command: Command, args: argparse.Namespace) -> int:
    """Run the command, print its error if it fails, and return the exit status."""
    # SIGTERM stops us as cleanly as Ctrl-C. SIGINT is set too, because a shell's `&` starts us with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return command.run(args)
    except UsageError as error:
        return report_failure(error, WRONG_USAGE)
    except FAILURES as error:
        return report_failure(error)
    except KeyboardInterrupt:
        return report_failure("interrupted", INTERRUPTED)


def report_failure(reason: object, status: int = FAILED) -> int:
    """Print the reason to stderr and return the exit status."""
    print(f"bench: {reason}", file=sys.stderr)
    return status


def add_json_output(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option `--out` for the JSON of a run, by default `name` in the folder of results."""
    text = f"JSON of the run (default: {OUT.name}/{name})"
    parser.add_argument("--out", type=Path, default=OUT / name, metavar="FILE", help=text)


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: not an integer of at least 1")
    return int(text)


def positive_ints(text: str) -> tuple[int, ...]:
    """Parse a list such as `1,2,4`."""
    return tuple(positive_int(each) for each in text.split(","))


def host_port(text: str) -> str:
    """Parse a gRPC address, `HOST:PORT`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: not a gRPC address HOST:PORT, for example 127.0.0.1:8001")
    return text
