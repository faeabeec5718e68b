"""Fixtures: a fake server and a client that is connected to it."""

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
    with AvatarClient(server.address, timeout=30) as client:
        yield client
