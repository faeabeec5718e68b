import pytest

from avatar.inference import server_pool


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the servers more often than in use, so that no test waits for a second."""
    monkeypatch.setattr(server_pool, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(server_pool, "RECHECK_SECONDS", 0.1)
