"""Configure the logging of a process: text or JSON lines on stderr, each with the id of its request."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # line breaks and terminal control characters

# Tasks and threads that are started for a request or a job inherit the value.
request_id: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdFilter(logging.Filter):
    """Adds the current request's id to each record that has none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the id and keep the record."""
        if not hasattr(record, "request_id"):  # the job sets it on its own records
            record.request_id = request_id.get()
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; the keys of its `fields` mapping are added to the object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON text."""
        line: dict[str, object] = {
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
    """Formats a message as one line, so that quoted text (ffmpeg's stderr) cannot forge a log line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line without the traceback, which follows on lines of its own."""
        record.message = _CONTROL.sub(" | ", record.message)
        return super().formatMessage(record)


def make_handler(log_format: Literal["text", "json"]) -> logging.Handler:
    """Return a handler that writes to stderr in this format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(
        JsonFormatter()
        if log_format == "json"
        else TextFormatter("%(asctime)s %(levelname)-7s [%(request_id)s] %(name)s: %(message)s")
    )
    return handler


def configure(level: str, log_format: Literal["text", "json"]) -> None:
    """Log everything in this process to stderr; a program calls it once."""
    root = logging.getLogger()
    root.handlers[:] = [make_handler(log_format)]
    root.setLevel(level.upper())
    # the pool logs every try to connect while the database is away; whoever needs a connection logs or answers that
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
