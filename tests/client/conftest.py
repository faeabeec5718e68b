"""A server that speaks the protocol without doing the work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from avatar_client import AvatarClient
from tests.client.fake_server import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[AvatarClient]:
    with AvatarClient(server.address, timeout=30) as made:
        yield made
