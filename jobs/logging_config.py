"""Configure the logging of a process: text or JSON lines on stderr, each with the ids of its request and its trace."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from avatar.tracing import request_id, trace_id

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # line breaks and terminal control characters


class IdFilter(logging.Filter):
    """Adds the ids of the current request and of the current trace to each record; the job sets the first itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids and keep the record."""
        if not hasattr(record, "request_id"):
            record.request_id = request_id.get()
        record.trace_id = trace_id()
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
        if trace := getattr(record, "trace_id", ""):
            line["trace_id"] = trace
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
        record.ids = " ".join(filter(None, (getattr(record, "request_id", "-"), getattr(record, "trace_id", ""))))
        return super().formatMessage(record)


def make_handler(log_format: Literal["text", "json"]) -> logging.Handler:
    """Return a handler that writes to stderr in this format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(IdFilter())
    handler.setFormatter(
        JsonFormatter()
        if log_format == "json"
        else TextFormatter("%(asctime)s %(levelname)-7s [%(ids)s] %(name)s: %(message)s")
    )
    return handler


def configure(level: str, log_format: Literal["text", "json"]) -> None:
    """Log everything in this process to stderr; a program calls it once."""
    root = logging.getLogger()
    root.handlers[:] = [make_handler(log_format)]
    root.setLevel(level.upper())
    # the pool logs every try to connect while the database is away; whoever needs a connection logs or answers that
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
