"""What a command writes: its result on standard output, all words on standard error; with `--json`, one JSON object."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TextIO

from ._errors import AvatarClientError, Cancelled, InvalidRequest, Unavailable
from ._progress_bar import ProgressBar

GREEN, YELLOW, RED = 32, 33, 31  # of ANSI's colors
_RESET = "\x1b[0m"
# Codes of errors that the service has not named itself; docs/guide/commands.md lists them.
USAGE, FILE, CANCELLED = "usage", "file", "cancelled"
NOT_CANCELED, JOB_CANCELED, JOB_EXPIRED = "not_canceled", "job_canceled", "job_expired"
FACE_NOT_FOUND, MISSING_EXTRA, PROBLEM_FOUND = "face_not_found", "missing_extra", "problem_found"
SERVER_ERROR = "server_error"
_CODES: tuple[tuple[type[AvatarClientError], str], ...] = (
    (InvalidRequest, "invalid_request"),
    (Unavailable, "unavailable"),
    (Cancelled, CANCELLED),
)
CODES = frozenset({name for _, name in _CODES}) | {
    *(USAGE, FILE, NOT_CANCELED, JOB_CANCELED, JOB_EXPIRED),
    *(FACE_NOT_FOUND, MISSING_EXTRA, PROBLEM_FOUND, SERVER_ERROR),
}


@dataclass(frozen=True)
class Failure:
    """Why a command failed, as `error` of the JSON has it.

    Attributes:
        code: for programs; the service's own, where it has sent one.
        detail: a sentence for a person.
        status: the HTTP status that means the same; None where there is none.
        retry_after: seconds after which another attempt makes sense; None if it makes none.
    """

    code: str
    detail: str
    status: int | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, error: AvatarClientError) -> Failure:
        """Return what an error of a call means."""
        code = next((name for kind, name in _CODES if isinstance(error, kind)), SERVER_ERROR)
        after = error.retry_after if isinstance(error, Unavailable) else None
        return cls(error.error_code or code, one_line(error.message), error.code, after)


class Style:
    """Colors text for a terminal; for other outputs, and if `NO_COLOR` is set, text stays as it is."""

    def __init__(self, stream: TextIO) -> None:
        self._on = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def __call__(self, text: str, color: int) -> str:
        """Return the text in a color of ANSI, 30 to 37."""
        return f"\x1b[{color}m{text}{_RESET}" if self._on else text


class Console:
    """The output of one command.

    Attributes:
        as_json: whether the result is one JSON object.
        bar: shows the progress.
    """

    def __init__(self, *, as_json: bool = False, progress: bool = True, stdout_is_data: bool = False) -> None:
        """Make the output; `stdout_is_data`: standard output is the video, so the result goes to standard error."""
        self.as_json = as_json
        self._out = sys.stderr if stdout_is_data else sys.stdout
        self._err = sys.stderr
        self._style = Style(sys.stderr)
        self._warnings: list[str] = []
        self.bar = ProgressBar(sys.stderr, quiet=as_json or not progress)

    def note(self, text: str) -> None:
        """Print what the service did with an unusual file; JSON has the notes in its result."""
        if not self.as_json:
            self._say(f"{self._style('note:', YELLOW)} {text}")

    def warn(self, text: str) -> None:
        """Print a warning; it is one of the `warnings` of the JSON."""
        self._warnings.append(text)
        if not self.as_json:
            self._say(text, YELLOW)

    def result(self, document: Mapping[str, object], text: str = "", failure: Failure | None = None) -> None:
        """Print the result: the document as JSON, or the text.

        Args:
            document: values that JSON has.
            text: the same for a person; nothing is printed for an empty one.
            failure: why the exit status is not 0 although there is a result.
        """
        self.bar.clear()
        if self.as_json:
            error = asdict(failure) if failure else document.get("error")
            self._print_json({**document, "error": error, "warnings": self._warnings})
        elif text:
            print(text, file=self._out, flush=True)

    def fail(self, failure: Failure) -> None:
        """Print why there is no result."""
        self.bar.clear()
        if self.as_json:
            self._print_json({"error": asdict(failure), "warnings": self._warnings})
        else:
            self._say(failure.detail, RED)

    def _print_json(self, document: Mapping[str, object]) -> None:
        print(json.dumps(document), file=self._out, flush=True)

    def _say(self, text: str, color: int | None = None) -> None:
        self.bar.clear()
        prefix = "avatar:" if color is None else self._style("avatar:", color)
        print(f"{prefix} {one_line(text)}", file=self._err, flush=True)


def one_line(text: str) -> str:
    """Return the text without line breaks: the server's sentences may have some."""
    return " ".join(text.split())
