"""Count what each owner holds, such as running requests by client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Held:
    """Counts what is held, by the key of its owner. For one event loop."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Number of all that is held."""
        return self._counts.total()

    def by(self, key: str) -> int:
        """Return how many this owner holds."""
        return self._counts[key]

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Count one more of this owner within the block."""
        self._counts[key] += 1
        try:
            yield
        finally:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
