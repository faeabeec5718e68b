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


class UnreadLimit:
    """Recognizes a stream whose caller does not read.

    No model learns what its callers have read: Triton keeps it for them. But then the server's memory grows by as much
    as the stream has sent.
    """

    def __init__(self, limit: int) -> None:
        """Start to compare; both numbers may grow by `limit` bytes."""
        self.limit = limit
        self.restart(0)

    def restart(self, unread: int) -> None:
        """Compare from now on, with this many unread bytes."""
        self._unread, self._memory = unread, server_memory()

    def is_exceeded(self, unread: int) -> bool:
        """Return whether the server's memory has grown by more than the limit, and the unread bytes too."""
        return self.growth(unread) > self.limit and server_memory() - self._memory > self.limit

    def growth(self, unread: int) -> int:
        """Return by how much the unread bytes have grown."""
        return unread - self._unread
