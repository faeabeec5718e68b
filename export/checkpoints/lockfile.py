"""The lock file of a weights folder: hashes of files that are not, or cannot be, checked against a published hash."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from ..errors import ExportError
from ..files import atomic_write

LOCK_FILE = "weights.lock.json"


class Lockfile:
    """The recorded hashes of one folder.

    Raises:
        ExportError: the lock file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._content: dict[str, dict[str, object]] = {}
        if self._path.exists():
            try:
                self._content = dict(json.loads(self._path.read_text("utf-8")))
            except ValueError as error:
                raise ExportError(f"{self._path}: not valid JSON; repair it or remove it") from error

    def sha256(self, name: str) -> str | None:
        """Return the recorded hash of a file, if there is one."""
        value = self._content.get(name, {}).get("sha256")
        return str(value) if value else None

    def record(self, name: str, path: Path, sha256: str, source: str) -> None:
        """Record the hash of the file at `path` under `name`, with its size, its source and today's date."""
        today = datetime.now(UTC).date().isoformat()
        self._content[name] = {"size": path.stat().st_size, "sha256": sha256, "source": source, "date": today}
        with atomic_write(self._path) as temporary:
            temporary.write_text(json.dumps(self._content, indent=2, sort_keys=True) + "\n", "utf-8")
