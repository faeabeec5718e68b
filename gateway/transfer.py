"""The least rate of an upload or a download: a deadline that moves with every byte. Pure: the caller has the clock."""

from __future__ import annotations


class Pace:
    """Says how much time a transfer has left.

    A transfer may take `seconds`, and one second more for every `min_rate` bytes: a fast one never comes near its end,
    and one that sends a byte now and then ends after `seconds`.

    Args:
        seconds: time that every transfer may take.
        min_rate: bytes per second after that.
        start: the clock's time at the start, in seconds.
    """

    def __init__(self, seconds: float, min_rate: float, start: float) -> None:
        self._seconds = seconds
        self._min_rate = min_rate
        self._end = start + seconds

    @property
    def rule(self) -> str:
        """Return what is required, for the text of an error."""
        return f"after the first {self._seconds:g} s, at least {self._min_rate:g} bytes per second are required"

    def advance(self, size: int) -> None:
        """Count `size` bytes that were sent or received."""
        self._end += size / self._min_rate

    def excuse(self, seconds: float) -> None:
        """Leave out a time in which the other side could not go on."""
        self._end += seconds

    def left(self, now: float) -> float:
        """Return the seconds that are left; 0 if the time is over."""
        return max(0.0, self._end - now)
