"""Fixtures of the jobs: a store in a folder, and files for it."""

import random
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[int], Path]:
    """Write a file with that many random bytes."""

    def make(size: int) -> Path:
        path = tmp_path / secrets.token_hex(4)
        path.write_bytes(random.Random(size).randbytes(size))
        return path

    return make


async def keys(store: Store, prefix: str = "") -> list[str]:
    return sorted([blob.key async for blob in store.list(prefix)])
