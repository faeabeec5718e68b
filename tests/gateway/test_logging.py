import json
import logging
import sys
from typing import Literal

import pytest

from avatar.tracing import request_id
from jobs.logging_config import make_handler


@pytest.fixture
def record() -> logging.LogRecord:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord("gateway.x", logging.ERROR, "x.py", 1, "it %s", ("failed",), sys.exc_info())
    record.fields = {"status": 500}
    return record


def formatted(form: Literal["text", "json"], record: logging.LogRecord) -> str:
    writer = make_handler(form)
    token = request_id.set("request-9")
    try:
        writer.filter(record)
    finally:
        request_id.reset(token)
    return writer.format(record)


def test_a_json_line_holds_the_record_with_the_requests_id(record: logging.LogRecord) -> None:
    line = formatted("json", record)
    assert "\n" not in line
    entry = json.loads(line)
    assert entry["request_id"] == "request-9"
    assert (entry["level"], entry["logger"], entry["message"], entry["status"]) == (
        "error",
        "gateway.x",
        "it failed",
        500,
    )
    assert entry["exception"].endswith("ValueError: broken")
    assert entry["time"].endswith("+00:00")


def test_a_text_line_shows_the_requests_id_and_the_traceback(record: logging.LogRecord) -> None:
    text = formatted("text", record)
    assert "ERROR   [request-9] gateway.x: it failed\nTraceback" in text


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_quoted_text_cannot_look_like_a_log_line(form: Literal["text", "json"]) -> None:
    quoted = "bad\n2026-01-01 INFO [-] gateway: all is well\r\x1b[2Kforged\u2028too"
    text = formatted(form, logging.LogRecord("avatar", logging.INFO, "x.py", 1, "ffmpeg: %s", (quoted,), None))
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text


def test_outside_a_request_the_id_is_a_dash() -> None:
    writer = make_handler("text")
    plain = logging.LogRecord("gateway", logging.INFO, "x.py", 1, "listening", None, None)
    writer.filter(plain)
    assert "[-] gateway: listening" in writer.format(plain)
