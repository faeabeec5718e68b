"""The store, in a real folder and on a real S3 server (SeaweedFS)."""

import asyncio
import hashlib
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from avatar.errors import StorageFault
from jobs.store import MissingBlob, Store
from tests.jobs.conftest import keys
from tests.support.seaweedfs import SeaweedFS

LARGE = 17 << 20  # three parts of a multipart upload

pytestmark = pytest.mark.xdist_group("seaweedfs")


@pytest.fixture
def bucket(s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return Store.open(s3_server.url(secrets.token_hex(8)))


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


async def read(store: Store, key: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in await store.open_range(key, start, end)])


@pytest.mark.parametrize("size", [0, 1, 100_000, LARGE])
async def test_a_file_comes_back_as_it_was_stored(
    store: Store, size: int, make_file: Callable[[int], Path], tmp_path: Path
) -> None:
    source = make_file(size)
    stored = await store.put_file("inputs/1/face_file", source)
    assert (stored.size, stored.sha256) == (size, hashlib.sha256(source.read_bytes()).hexdigest())
    assert await store.fetch_file("inputs/1/face_file", tmp_path / "back") == size
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    blob = await store.head("inputs/1/face_file")
    assert blob is not None
    assert (blob.key, blob.size, blob.etag) == ("inputs/1/face_file", size, stored.etag)
    assert stored.etag
    assert '"' not in stored.etag
    assert abs(blob.modified.timestamp() - time.time()) < 60


async def test_a_range_is_read_without_the_rest(store: Store, make_file: Callable[[int], Path]) -> None:
    source = make_file(LARGE)
    await store.put_file("results/1/1.mp4", source)
    for start, end in [(0, 1), (10, 20), (0, LARGE), (5 << 20, 16 << 20), (LARGE - 1, LARGE), (7, 7)]:
        assert await read(store, "results/1/1.mp4", start, end) == source.read_bytes()[start:end]


async def test_a_key_without_a_file_is_told_apart_from_a_fault(store: Store, tmp_path: Path) -> None:
    assert await store.head("results/none") is None
    with pytest.raises(MissingBlob, match="results/none"):
        await store.fetch_file("results/none", tmp_path / "back")
    with pytest.raises(MissingBlob):
        await store.open_range("results/none", 0, 10)
    assert not (tmp_path / "back").exists()


async def test_files_are_listed_by_prefix_and_removed(store: Store, make_file: Callable[[int], Path]) -> None:
    wanted = ["inputs/1/face_file", "inputs/1/speech_file", "inputs/2/face_file", "results/1/1.mp4"]
    for key in wanted:
        await store.put_file(key, make_file(100))
    assert await keys(store) == wanted
    assert await keys(store, "inputs/") == wanted[:3]
    assert await keys(store, "inputs/1/") == wanted[:2]
    assert await keys(store, "avatars/") == []
    await store.delete(["inputs/1/face_file", "inputs/none", "inputs/2/face_file"])
    await store.delete([])
    assert await keys(store) == ["inputs/1/speech_file", "results/1/1.mp4"]


async def test_many_files_are_listed_and_removed_at_once(store: Store, make_file: Callable[[int], Path]) -> None:
    source = make_file(10)
    names = [f"avatars/{number:04}" for number in range(120)]
    await asyncio.gather(*(store.put_file(name, source) for name in names))
    assert await keys(store, "avatars/") == names
    await store.delete(names)
    assert await keys(store) == []


async def test_a_file_is_replaced_as_a_whole(store: Store, make_file: Callable[[int], Path], tmp_path: Path) -> None:
    sizes = (LARGE, LARGE + 1)
    sources = [make_file(size) for size in sizes]
    digests = {hashlib.sha256(source.read_bytes()).hexdigest() for source in sources}
    await store.put_file("avatars/1", sources[0])
    writing = asyncio.create_task(store.put_file("avatars/1", sources[1]))
    while not writing.done():
        await store.fetch_file("avatars/1", tmp_path / "seen")
        assert hashlib.sha256((tmp_path / "seen").read_bytes()).hexdigest() in digests
    await writing
    await store.fetch_file("avatars/1", tmp_path / "seen")
    assert (tmp_path / "seen").read_bytes() == sources[1].read_bytes()


async def test_the_check_leaves_nothing(store: Store) -> None:
    await store.check()
    assert await keys(store) == []


async def test_what_a_killed_check_left_is_removed(store: Store, make_file: Callable[[int], Path]) -> None:
    await store.put_file("checks/left", make_file(10))
    assert await store.remove_partial(60) == 0
    assert await store.remove_partial(-60) == 1
    assert await keys(store) == []


async def test_a_fault_is_remembered_for_a_while(folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder.folder is not None
    assert await folder.fault() is None
    (folder.folder / "checks").write_bytes(b"a file where a folder should be")
    assert await folder.fault() is None
    monkeypatch.setattr("jobs.store._PROBE_AGE", -1)
    assert await folder.fault() == "the store reports an error"
    (folder.folder / "checks").unlink()
    assert await folder.fault() is None


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "a b", "a/ü", "a\nb", "x\0"])
async def test_a_key_that_could_leave_the_store_is_refused(folder: Store, key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no key"):
        await folder.put_file(key, tmp_path)
    with pytest.raises(ValueError, match="no key"):
        await folder.delete(["a", key])
    with pytest.raises(ValueError, match="no key"):
        await folder.open_range(key, 0, 1)


# S3


async def test_a_signed_url_gives_the_file_with_its_type_and_name(
    bucket: Store, make_file: Callable[[int], Path]
) -> None:
    source = make_file(100_000)
    await bucket.put_file("results/1/1.mp4", source, content_type="video/mp4", filename="my video.mp4")
    url = await bucket.signed_url("results/1/1.mp4", 60)
    assert url is not None
    async with httpx.AsyncClient() as client:
        response = await client.get(url)
        part = await client.get(url, headers={"Range": "bytes=10-19"})
        unsigned = await client.get(url.partition("?")[0])
        other = await client.get(url.replace("1.mp4", "2.mp4"))
    assert response.content == source.read_bytes()
    assert response.headers["content-type"] == "video/mp4"
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''my%20video.mp4"
    assert (part.status_code, part.content) == (206, source.read_bytes()[10:20])
    assert unsigned.status_code == 403
    assert other.status_code == 403


async def test_a_signed_url_takes_a_file(bucket: Store, tmp_path: Path) -> None:
    url = await bucket.signed_url("inputs/1/face_file", 60, "PUT")
    assert url is not None
    async with httpx.AsyncClient() as client:
        assert (await client.put(url, content=b"a face")).status_code == 200
        assert (await client.get(url)).status_code == 403  # it is signed for PUT only
    assert await bucket.fetch_file("inputs/1/face_file", tmp_path / "face") == 6


async def test_a_signed_url_ends(bucket: Store, make_file: Callable[[int], Path]) -> None:
    await bucket.put_file("results/1/1.mp4", make_file(10))
    url = await bucket.signed_url("results/1/1.mp4", 1)
    assert url is not None
    async with httpx.AsyncClient() as client:
        for _ in range(100):
            response = await client.get(url)
            if response.status_code == 403:
                return
            await asyncio.sleep(0.1)
    pytest.fail("the URL is valid for more than 10 s")


async def test_signed_urls_name_the_endpoint_that_callers_reach(
    bucket: Store, s3_server: SeaweedFS, make_file: Callable[[int], Path]
) -> None:
    assert bucket.folder is None
    public = Store.open(s3_server.url("public"), public_endpoint=f"http://localhost:{s3_server.port}")
    await public.put_file("results/1/1.mp4", make_file(10))
    url = await public.signed_url("results/1/1.mp4", 60)
    assert url is not None
    assert url.startswith(f"http://localhost:{s3_server.port}/")
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).content == make_file(10).read_bytes()


async def test_stores_in_one_bucket_do_not_see_each_other(
    bucket: Store, s3_server: SeaweedFS, make_file: Callable[[int], Path]
) -> None:
    await bucket.put_file("avatars/1", make_file(10))
    other = Store.open(s3_server.url(secrets.token_hex(8)))
    assert await keys(other) == []
    assert await other.head("avatars/1") is None


async def test_credentials_that_may_not_write_are_a_storage_fault(
    s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch, make_file: Callable[[int], Path]
) -> None:
    for name, value in s3_server.environment(read_only=True).items():
        monkeypatch.setenv(name, value)
    store = Store.open(s3_server.url("read-only"))
    with pytest.raises(StorageFault, match="refuses the credentials"):
        await store.check()
    with pytest.raises(StorageFault, match="refuses the credentials"):
        await store.put_file("avatars/1", make_file(LARGE))


async def test_a_server_that_is_down_or_silent_is_a_storage_fault(
    s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StorageFault, match="does not answer in time"):
            await Store.open(s3_server.url("down")).check(0.5)
    with pytest.raises(StorageFault):
        await Store.open(s3_server.url("down")).check(0.5)


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "s3://", "s3:", "https://bucket.s3.amazonaws.com/x", "memory:///", "file://host/x"]
)
def test_another_url_is_no_store(url: str) -> None:
    with pytest.raises(ValueError, match="a store is a folder"):
        Store.open(url)


def test_a_store_may_be_used_from_another_event_loop(folder: Store) -> None:
    threads = [threading.Thread(target=lambda: asyncio.run(folder.check())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
