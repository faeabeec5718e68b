"""What a server wrote before it ended by itself: the end of its log, and only what belongs to the end."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from .startup_log import reason

_LINE = re.compile(r'^(?P<level>[IWEF])\d{4} [\d:.]+ \d+ [\w.]+:\d+\] "?(?P<text>.*?)"?$')
_TAIL_BYTES = 16_384
_WORDS = re.compile(r"(error|failed to|terminate called|what\(\):|Signal \()", re.IGNORECASE)
_KILLED = "nobody but another process sends this signal; if memory was short, the kernel's log (dmesg) says so"


def describe_end(status: int, log: Path, start: int = 0) -> str:
    """Return why a server ended: its exit status (negative: a signal), and its last words behind byte `start`.

    An error in the middle of the log is not a reason: the server lived on after it.
    """
    ended = describe_status(status)
    if status == -signal.SIGKILL:  # which nobody can answer with words
        return f"{ended}: {_KILLED}"
    words = last_words(_tail(log, start))
    return f"{ended}: {words}" if words else ended


def describe_status(status: int) -> str:
    """Return an exit status as text; a negative one is a signal."""
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def last_words(text: str) -> str:
    """Return the error with which a log ends, or an empty string: what follows its last ordinary line."""
    words: list[str] = []
    for line in reversed(text.splitlines()):
        found = _LINE.match(line)
        if found and found["level"] in "IW":
            break
        if found:
            words.append(reason(found["text"]))
        elif _WORDS.search(line):
            words.append(" ".join(line.split()))
    return "; ".join(reversed(words[-3:]))


def _tail(log: Path, start: int) -> str:
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
