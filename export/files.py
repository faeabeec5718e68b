"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".part"  # suffix of a file that is being written


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; the file there becomes `path` when the block ends without an error.

    So readers see the old file or the new one, never half of one, and nothing is left of a failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
