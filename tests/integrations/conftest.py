"""Fixtures for the adapters: a small face, and a relay in front of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import pytest

from embedded.server import Triton
from tests.support.relay import Relay, relay


@pytest.fixture(scope="session")
def small_face(samples: Path) -> bytes:
    """An image with a face, small so that its frames are."""
    image = cv2.imread(str(samples / "portrait.png"))
    return bytes(cv2.imencode(".png", cv2.resize(image, None, fx=0.4, fy=0.4))[1])


@pytest.fixture
async def relayed(triton: Triton) -> AsyncIterator[Relay]:
    """The server behind a relay that can be cut."""
    async with relay(triton.grpc_address) as running:
        yield running
