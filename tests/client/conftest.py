"""A server that speaks the protocol without doing the work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from fake_server import FakeServer  # noqa: E402

from lipsync_client import AvatarClient  # noqa: E402


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[AvatarClient]:
    with AvatarClient(server.address, timeout=30) as made:
        yield made
