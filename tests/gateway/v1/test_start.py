"""A gateway is ready when jobs can be handed over, or when its database does not answer."""

import asyncio
from pathlib import Path

import pytest

from jobs.database import Database
from jobs.migrate import migrate
from tests.gateway.v1.conftest import service_v1
from tests.support.gateway_fakes import Serve, eventually, form


async def test_a_gateway_is_not_ready_before_its_tables_are_there(
    serve: Serve, empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def late(database: Database) -> list[str]:
        await go_on.wait()
        return await migrate(database)

    monkeypatch.setattr("gateway.job_service.migrate", late)
    async with serve(database_url=empty_database, store=str(tmp_path / "store"), workers=0) as client:
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "tables of the jobs are being prepared" in answer.json()["detail"]
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.post("/", files=form())).status_code == 200
        go_on.set()
        await eventually(lambda: service_v1(client).schema.tried)
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/v1/jobs", files=form())).status_code == 202


async def test_a_gateway_whose_database_is_away_is_ready_after_the_first_try(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.database.CONNECT_SECONDS", 2.0)
    url = f"postgresql:///none?host={tmp_path}&user=none"
    async with serve(database_url=url, store=str(tmp_path / "store")) as client:
        assert (await client.get("/health/ready")).status_code == 503
        await eventually(lambda: service_v1(client).schema.tried)
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        assert "the database does not answer" in ready.json()["database_fault"]
