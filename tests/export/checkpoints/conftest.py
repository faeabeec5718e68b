"""Fixture of the downloads: the lines of progress."""

from __future__ import annotations

import pytest


@pytest.fixture
def lines() -> list[str]:
    return []
