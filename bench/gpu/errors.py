"""Errors of the steps."""

from __future__ import annotations

from ..errors import BenchError


class LeftOut(BenchError):
    """A step cannot run here; the message says what is missing."""
