"""Log lines, each with the id of the request that it belongs to."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # line breaks, and what commands a terminal

# Tasks and threads started for a request inherit it.
request_id: ContextVar[str] = ContextVar("request_id", default="-")


class WithRequestId(logging.Filter):
    """Puts the current request's id on each record that has none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, with its id."""
        if not hasattr(record, "request_id"):  # the job's own lines carry it already
            record.request_id = request_id.get()
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a record's `fields` (a mapping) become keys of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON text."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            line.update(fields)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """One line for a message, whatever it quotes: ffmpeg's words about a file cannot pass for a line of ours."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line without a traceback; that follows on lines of its own."""
        record.message = _CONTROL.sub(" | ", record.message)
        return super().formatMessage(record)


def handler(form: Literal["text", "json"]) -> logging.Handler:
    """A handler that writes to stderr, in the form wished for."""
    made = logging.StreamHandler(sys.stderr)
    made.addFilter(WithRequestId())
    made.setFormatter(
        JsonFormatter()
        if form == "json"
        else TextFormatter("%(asctime)s %(levelname)-7s [%(request_id)s] %(name)s: %(message)s")
    )
    return made


def configure(level: str, form: Literal["text", "json"]) -> None:
    """Log everything of this process to stderr. Called once, by `python -m gateway`."""
    root = logging.getLogger()
    root.handlers[:] = [handler(form)]
    root.setLevel(level.upper())
    if level != "debug":  # its news ("Started server process") is told by lines of our own
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
