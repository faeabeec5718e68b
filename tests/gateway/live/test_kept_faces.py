"""Live sessions with faces that `POST /v1/avatars` has kept: a real PostgreSQL, a real folder, a fake `live`."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from jobs.database import Database
from jobs.records import NO_TENANT, StoredFile
from jobs.repository import avatars
from jobs.repository.avatars import avatar_key
from tests.gateway.conftest import Live
from tests.gateway.live.conftest import Talk
from tests.support.fake_live import INFO, FakeLive
from tests.support.gateway_fakes import eventually
from tests.support.live_callers import calling

FACE = b"a face that was kept"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def gateway(talk: Talk, database_url: str, store: Path) -> Live:
    gateway = await talk(database_url=database_url, store=str(store), workers=0)
    await eventually(lambda: gateway.service.v1 is not None and gateway.service.v1.schema.ready)
    return gateway


@pytest.fixture
async def kept(gateway: Live, database_url: str, store: Path) -> AsyncIterator[UUID]:
    """The id of a kept face."""
    identity = uuid4()
    path = store / avatar_key(identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(FACE)
    file = StoredFile(avatar_key(identity), len(FACE), "0" * 64)
    async with Database(database_url) as database:
        about = {"width": 64, "height": 48, "frames": None}
        await avatars.add(database, identity, NO_TENANT, file, "jpeg", about)
    yield identity


async def test_a_kept_face_is_sent_once_and_then_named(gateway: Live, kept: UUID, models: FakeLive) -> None:
    for _ in range(3):
        async with calling(gateway.url) as caller:
            session = await caller.start(avatar=str(kept), options={"background": "White"})
            assert session["type"] == "session"
    first, *others = models.starts
    assert first["face_file"].tobytes() == FACE
    assert (first["avatarFileType"], first["background"]) == ("jpeg", "White")
    for start in others:
        assert start["avatar"] == INFO["avatar"]
        assert not {"face_file", "avatarFileType", "background"} & start.keys()
    async with calling(gateway.url) as caller:
        await caller.start(avatar=str(kept))  # with other options it is another avatar
    assert "face_file" in models.starts[-1]


async def test_a_kept_face_that_the_model_has_forgotten_is_sent_again(
    gateway: Live, kept: UUID, models: FakeLive
) -> None:
    for forgotten in (False, True, False):
        models.forgotten = forgotten
        async with calling(gateway.url) as caller:
            assert (await caller.start(avatar=str(kept)))["type"] == "session"
    assert ["face_file" in start for start in models.starts] == [True, False, True, False]


async def test_an_unknown_face_is_not_found(gateway: Live, models: FakeLive) -> None:
    async with calling(gateway.url) as caller:
        error = await caller.start(avatar=str(uuid4()))
        assert (error["status"], error["code"]) == (404, "avatar_not_found")
        assert (await caller.close_code())[0] == 1008
    assert not models.starts


async def test_a_store_that_fails_is_a_fault_of_the_machine(gateway: Live, kept: UUID, store: Path) -> None:
    shutil.rmtree(store)
    async with calling(gateway.url) as caller:
        error = await caller.start(avatar=str(kept))
        assert error["status"] == 503
        assert (await caller.close_code())[0] == 1013
