"""The modules that use LiveKit and Pipecat: a test imports them when it needs them, because both take seconds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


@contextmanager
def old_names_allowed() -> Iterator[None]:
    """Import a library in this block; that it uses deprecated names itself is not our fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def load(name: str) -> Any:
    """Import a module, and with it its library."""
    with old_names_allowed():
        return import_module(name)
