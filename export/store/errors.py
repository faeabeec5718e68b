"""The errors of a model store, each one sentence for the operator."""

from __future__ import annotations

from ..errors import ExportError


class StoreError(ExportError):
    """The store cannot be used; another try would fail too."""


class NotStored(StoreError):
    """The store has nothing under a key."""


class Interrupted(StoreError):
    """The store failed in a way that may be over at the next try."""
