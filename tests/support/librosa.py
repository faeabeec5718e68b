"""librosa without numba.

librosa compiles functions with numba while it is imported, a quarter of a minute in a new environment. Neither its STFT
nor its filters call one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


class NoNumba(ModuleType):
    """A module whose decorators return the function as it is."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _decorator


def _decorator(*arguments: Any, **_: Any) -> Any:
    if len(arguments) == 1 and callable(arguments[0]):
        return arguments[0]
    return lambda function: function


def imported() -> ModuleType:
    """Return librosa, with its STFT and its filters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numba", NoNumba("numba"))
        import librosa
        import librosa.core.spectrum
        import librosa.filters
        import librosa.util.utils
    return librosa
