"""The results of a run: rows of a few tables, kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

Row = dict[str, object]  # `table`, and the columns of that table by name


def append(path: Path, row: Row) -> None:
    """Add a row to a file, in one write, so that a process that is killed leaves whole rows."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[Row]:
    """Return the rows of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def of_table(rows: Iterable[Row], table: str) -> list[Row]:
    """Return the rows of one table."""
    return [row for row in rows if row["table"] == table]


def number(row: Row, name: str) -> float | None:
    """Return a number of a row; None where it has none of that name."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else None


def largest(rows: Sequence[Row], name: str) -> float | None:
    """Return the largest number of that name; None where there is none."""
    return max((value for row in rows if (value := number(row, name)) is not None), default=None)
