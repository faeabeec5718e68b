"""The session's Triton, as the tests of the streaming models see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedded.server import Triton
from tests.support.triton_server import Served
from tests.support.triton_streams import stub


@pytest.fixture(scope="session")
def served(triton: Triton) -> Iterator[Served]:
    """The session's server; its log and work folder lie beside each other (see the root conftest)."""
    with stub(triton.grpc_address) as connection:
        yield Served(triton, connection, triton.log_path, triton.log_path.parent / "work")
