"""Fixture of the streaming models: the Triton of the test session, with its log and its work folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedded.server import Triton
from tests.support.triton_server import Served
from tests.support.triton_streams import stub


@pytest.fixture(scope="session")
def served(triton: Triton) -> Iterator[Served]:
    """The Triton of the test session; its log and its work folder are in one folder (see the root conftest)."""
    with stub(triton.grpc_address) as connection:
        yield Served(triton, connection, triton.log_path, triton.log_path.parent / "work")
