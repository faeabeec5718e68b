"""How much memory the server itself takes: what its callers do not read stays there."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ANONYMOUS = re.compile(r"^RssAnon:\s*(\d+) kB", re.MULTILINE)


def server_memory() -> int:
    """Return the bytes of the server process, without files and shared memory; 0 where that cannot be read.

    A model's process is a child of the server.
    """
    try:
        status = Path(f"/proc/{os.getppid()}/status").read_text()
    except OSError:
        return 0
    found = _ANONYMOUS.search(status)
    return int(found[1]) * 1024 if found else 0
