"""Files in memory that other processes of this user can open by a path: the disk may be full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def memory_file(content: bytes = b"") -> Iterator[Path]:
    """Give the path of a file in memory with this content."""
    descriptor = os.memfd_create("memory-file")
    try:
        path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        path.write_bytes(content)
        yield path
    finally:
        os.close(descriptor)
