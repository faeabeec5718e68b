"""A gateway stops soon although its database was killed and stays away."""

import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from embedded.errors import DatabaseEnded
from embedded.postgres import Postgres
from tests.gateway.v1.conftest import files
from tests.support.gateway_fakes import FakeRender, eventually, form
from tests.support.live_gateway import live_gateway
from tests.support.postgres import server_options

SOON = 20.0  # seconds: the grace and the waits take two; a worker that waits for the database would take minutes


async def test_a_stop_does_not_wait_for_a_database_that_stays_away(
    database_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One gateway runs a job, the end of another one's job cannot be written, and the slots of both look for more."""
    monkeypatch.setattr("jobs.database.CONNECT_SECONDS", 3.0)
    monkeypatch.setattr("jobs.attempt.STOPPED_SETTLE_SECONDS", 0.5)
    runs, ends = FakeRender(), FakeRender()
    runs.gate.clear()
    ends.gate.clear()
    with Postgres(database_folder / "data", **server_options(database_folder)) as server:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
            for number, render in enumerate((runs, ends)):
                work = tmp_path / f"work-{number}"
                work.mkdir()
                settings = {"work_dir": work, "store": str(tmp_path / "store"), "database_url": server.url}
                url = await stack.enter_async_context(live_gateway(render, **settings, workers=2, max_jobs=1))
                assert (await client.post(f"{url}/v1/jobs", files=form())).status_code == 202
                await render.reached(1)
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(DatabaseEnded):
                server.wait(20)
            ends.gate.set()
            await eventually(lambda: not ends.running)
            start = time.monotonic()
        assert time.monotonic() - start < SOON
    assert not runs.running
    assert [file for file in files(tmp_path) if file.startswith("work-")] == []
