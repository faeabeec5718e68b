"""The store in a folder: who may read it, what a killed writer leaves, and what is a fault of the disk."""

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from avatar.errors import StorageFault
from jobs.folder import PARTIAL, write_atomically
from jobs.store import Store
from tests.jobs.conftest import keys


async def test_a_folder_is_closed_to_other_users(folder: Store, make_file: Callable[[int], Path]) -> None:
    await folder.put_file("inputs/1/face_file", make_file(10))
    assert folder.folder is not None
    assert stat.S_IMODE(folder.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder.folder / "inputs" / "1" / "face_file").stat().st_mode) == 0o600


def test_a_folder_that_everybody_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o777)
    with pytest.raises(StorageFault, match="everybody can write"):
        Store.open(str(tmp_path / "store"))


async def test_a_link_to_a_folder_is_a_store(tmp_path: Path, make_file: Callable[[int], Path]) -> None:
    (tmp_path / "volume").mkdir(mode=0o755)
    (tmp_path / "store").symlink_to(tmp_path / "volume")
    await Store.open(str(tmp_path / "store")).put_file("avatars/1", make_file(10))
    assert await keys(Store.open(str(tmp_path / "volume"))) == ["avatars/1"]


async def test_a_folder_has_no_signed_urls(folder: Store) -> None:
    assert await folder.signed_url("results/1/1.mp4", 60) is None


async def test_a_folder_is_opened_by_url_and_again(tmp_path: Path, make_file: Callable[[int], Path]) -> None:
    path = tmp_path / "a store"
    first = Store.open(path.as_uri())
    await first.put_file("avatars/1", make_file(10))
    assert await keys(Store.open(str(path))) == ["avatars/1"]


async def test_empty_folders_are_removed_with_their_last_file(folder: Store, make_file: Callable[[int], Path]) -> None:
    await folder.put_file("inputs/1/face_file", make_file(10))
    await folder.delete(["inputs/1/face_file"])
    assert folder.folder is not None
    assert not (folder.folder / "inputs").exists()
    await folder.put_file("inputs/1/face_file", make_file(10))
    assert await keys(folder) == ["inputs/1/face_file"]


async def test_files_are_stored_while_the_folder_above_them_is_removed(
    folder: Store, make_file: Callable[[int], Path]
) -> None:
    source = make_file(10)

    async def put_and_delete(name: str) -> None:
        for _ in range(30):
            await folder.put_file(f"inputs/1/{name}", source)
            assert await folder.head(f"inputs/1/{name}")
            await folder.delete([f"inputs/1/{name}"])

    await asyncio.gather(put_and_delete("face_file"), put_and_delete("speech_file"))


async def test_what_a_killed_writer_left_is_not_seen_and_is_removed(
    folder: Store, make_file: Callable[[int], Path]
) -> None:
    assert folder.folder is not None
    source = make_file(10)
    await folder.put_file("inputs/1/face_file", source)
    left = folder.folder / PARTIAL / "left"
    left.write_bytes(b"half")
    (folder.folder / "inputs" / "2").mkdir()
    assert await keys(folder) == ["inputs/1/face_file"]
    assert await folder.remove_partial(60) == 0
    assert left.exists()
    for path in (left, left.parent, folder.folder / "inputs" / "2"):
        os.utime(path, (0, 0))
    assert await folder.remove_partial(60) == 1
    assert not left.exists()
    assert not (folder.folder / "inputs" / "2").exists()
    assert await keys(folder) == ["inputs/1/face_file"]
    await folder.put_file("inputs/1/speech_file", source)


def test_a_writer_that_is_killed_leaves_no_file_that_a_reader_sees(folder: Store, tmp_path: Path) -> None:
    assert folder.folder is not None
    source = tmp_path / "source"
    os.mkfifo(source)
    code = "import sys, pathlib, jobs.folder as f; f.write_atomically(*map(pathlib.Path, sys.argv[1:]))"
    arguments: list[str | Path] = [folder.folder, "inputs/1/face_file", source]
    writer = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=Path(__file__).parents[2])
    with source.open("wb") as pipe:  # waits until the writer reads
        pipe.write(bytes(3 << 20))
        pipe.flush()
        writer.kill()
        writer.wait()
    files = [path.relative_to(folder.folder) for path in folder.folder.rglob("*") if path.is_file()]
    assert [path.parts[0] for path in files] == [PARTIAL]
    assert asyncio.run(keys(folder)) == []
    assert asyncio.run(folder.remove_partial(-1)) == 1
    assert not [path for path in folder.folder.rglob("*") if path.is_file()]


def test_a_file_that_cannot_be_read_leaves_nothing(folder: Store, tmp_path: Path) -> None:
    assert folder.folder is not None
    with pytest.raises(FileNotFoundError):
        write_atomically(folder.folder, "inputs/1/face_file", tmp_path / "none")
    assert [path for path in folder.folder.rglob("*") if path.is_file()] == []


async def test_a_folder_that_cannot_be_used_is_a_storage_fault(
    tmp_path: Path, make_file: Callable[[int], Path]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFault):
        Store.open(str(tmp_path / "file" / "store"))
    store = Store.open(str(tmp_path / "store"))
    assert store.folder is not None
    (store.folder / "inputs").write_bytes(b"a file where a folder should be")
    with pytest.raises(StorageFault) as failure:
        await store.put_file("inputs/1/face_file", make_file(10))
    assert str(tmp_path) not in str(failure.value)


async def test_a_folder_of_the_job_that_was_removed_is_a_storage_fault(
    folder: Store, make_file: Callable[[int], Path], tmp_path: Path
) -> None:
    await folder.put_file("avatars/1", make_file(10))
    with pytest.raises(StorageFault, match="work folder was removed"):
        await folder.fetch_file("avatars/1", tmp_path / "gone" / "face_file")
