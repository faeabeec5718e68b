import json
import logging
import sys
from typing import Literal

import pytest

from gateway.logging_config import make_handler, request_id


@pytest.fixture
def record() -> logging.LogRecord:
    try:
        raise ValueError("broken")
    except ValueError:
        made = logging.LogRecord("gateway.x", logging.ERROR, "x.py", 1, "it %s", ("failed",), sys.exc_info())
    made.fields = {"status": 500}
    return made


def lines(form: Literal["text", "json"], record: logging.LogRecord) -> str:
    writer = make_handler(form)
    token = request_id.set("request-9")
    try:
        writer.filter(record)
    finally:
        request_id.reset(token)
    return writer.format(record)


def test_a_json_line_holds_the_record_with_the_requests_id(record: logging.LogRecord) -> None:
    line = lines("json", record)
    assert "\n" not in line
    read = json.loads(line)
    assert read["request_id"] == "request-9"
    assert (read["level"], read["logger"], read["message"], read["status"]) == ("error", "gateway.x", "it failed", 500)
    assert read["exception"].endswith("ValueError: broken")
    assert read["time"].endswith("+00:00")


def test_a_text_line_shows_the_requests_id_and_the_traceback(record: logging.LogRecord) -> None:
    text = lines("text", record)
    assert "ERROR   [request-9] gateway.x: it failed\nTraceback" in text


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_message_quotes_cannot_pass_for_a_line_of_its_own(form: Literal["text", "json"]) -> None:
    words = "bad\n2026-01-01 INFO [-] gateway: all is well\r\x1b[2Kforged\u2028too"
    text = lines(form, logging.LogRecord("avatar", logging.INFO, "x.py", 1, "ffmpeg: %s", (words,), None))
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text


def test_outside_of_requests_the_id_is_a_dash() -> None:
    writer = make_handler("text")
    plain = logging.LogRecord("gateway", logging.INFO, "x.py", 1, "listening", None, None)
    writer.filter(plain)
    assert "[-] gateway: listening" in writer.format(plain)
