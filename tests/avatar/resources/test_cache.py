"""What the cache stores, what it evicts, and how it treats damaged files, dead processes and unsafe folders."""

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from avatar.resources.cache import Cache, open_cache

ROOT = Path(__file__).parents[3]
MIB = 1 << 20


def arrays(number: int, size: int = 1000) -> dict[str, np.ndarray]:
    return {"numbers": np.full(size, number, np.int32), "more": np.array([number])}


def is_entry(entry: dict[str, np.ndarray] | None, number: int) -> bool:
    return entry is not None and int(entry["more"][0]) == number and bool((entry["numbers"] == number).all())


def test_an_entry_is_found_by_any_process_that_shares_the_folder(tmp_path: Path) -> None:
    cache = Cache(tmp_path, MIB)
    assert cache.get("a key") is None
    cache.put("a key", arrays(7))
    assert is_entry(cache.get("a key"), 7)
    assert is_entry(Cache(tmp_path, MIB).get("a key"), 7)
    assert cache.get("another key") is None


def test_hits_and_misses_are_counted_in_memory_and_on_disk(tmp_path: Path) -> None:
    cache = Cache(tmp_path, MIB)
    assert (cache.hits, cache.misses) == (0, 0)
    cache.get("k")
    cache.put("k", arrays(1))
    cache.get("k")  # in memory
    assert (cache.hits, cache.misses) == (1, 1)
    other = Cache(tmp_path, MIB)
    other.get("k")  # on disk
    other.get("another")
    assert (other.hits, other.misses) == (1, 1)
    assert (cache.hits, cache.misses) == (1, 1)


def test_no_count_is_lost_between_threads(tmp_path: Path) -> None:
    cache = Cache(tmp_path, MIB)
    cache.put("k", arrays(1, 10))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(cache.get, ["k", "none"] * 500))
    assert (cache.hits, cache.misses) == (500, 500)


def test_the_caller_may_change_the_arrays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, MIB)
    cache.put("k", arrays(1))
    found = cache.get("k")
    assert found is not None
    found["numbers"][:] = 9
    assert is_entry(cache.get("k"), 1)


def test_the_folder_stays_within_its_limit_and_keeps_the_entries_used_last(tmp_path: Path) -> None:
    cache = Cache(tmp_path, MIB)
    for number in range(40):  # 40 KB each
        before = set(tmp_path.iterdir())
        cache.put(str(number), arrays(number, 10_000))
        (added,) = set(tmp_path.iterdir()) - before
        os.utime(added, (number, number))  # the clock of the file system has too few ticks to order them
        assert is_entry(cache.get("0"), 0)  # which dates it now
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= MIB
    assert is_entry(Cache(tmp_path, MIB).get("39"), 39)
    assert is_entry(Cache(tmp_path, MIB).get("0"), 0)
    assert Cache(tmp_path, MIB).get("3") is None


def test_an_entry_larger_than_the_cache_is_not_stored(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10_000)
    cache.put("large", arrays(1, 10_000))
    assert cache.get("large") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not an archive", b"\x00" * 5000])
def test_a_damaged_entry_counts_as_missing(tmp_path: Path, damage: bytes) -> None:
    Cache(tmp_path, MIB).put("k", arrays(1))
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(damage)
    cache = Cache(tmp_path, MIB)
    assert cache.get("k") is None
    assert (cache.hits, cache.misses) == (0, 1)
    assert not entry.exists()
    cache.put("k", arrays(2))
    assert is_entry(cache.get("k"), 2)


def test_a_pickle_in_an_entry_is_not_loaded(tmp_path: Path) -> None:
    cache = Cache(tmp_path, MIB)
    cache.put("k", arrays(1))
    (entry,) = tmp_path.iterdir()
    np.savez(entry, numbers=np.array([object()], dtype=object))
    assert Cache(tmp_path, MIB).get("k") is None


def test_the_folder_is_accessible_by_its_owner_only(tmp_path: Path) -> None:
    Cache(tmp_path / "new" / "cache", MIB)
    assert stat.S_IMODE((tmp_path / "new" / "cache").stat().st_mode) == 0o700


def test_a_link_in_place_of_the_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="belongs to the user of this process"):
        Cache(tmp_path / "link", MIB)


def test_threads_and_processes_use_it_concurrently(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np; from avatar.resources.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]), 300_000)\n"
        "for n in range(200):\n"
        "    cache.put(str(n % 17), {'numbers': np.full(5000, n % 17, np.int32), 'more': np.array([n % 17])})\n"
        "    found = cache.get(str((n * 7) % 17))\n"
        "    assert found is None or (found['numbers'] == (n * 7) % 17).all()\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(2)]
    cache = Cache(tmp_path, 300_000)

    def work(first: int) -> None:
        for n in range(first, first + 100):
            cache.put(str(n % 17), arrays(n % 17, 5000))
            found = cache.get(str((n * 5) % 17))
            assert found is None or is_entry(found, (n * 5) % 17)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert [other.wait(60) for other in others] == [0, 0]
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 300_000 + 3 * 21_000  # three writers at most


def test_the_incomplete_file_of_a_dead_process_is_removed_after_a_while(tmp_path: Path) -> None:
    cache = Cache(tmp_path, MIB)
    stale, fresh = tmp_path / "stale.part", tmp_path / "fresh.part"
    for path in (stale, fresh):
        path.write_bytes(bytes(900_000))
    os.utime(stale, (1, 1))
    for number in range(8):
        cache.put(str(number), arrays(number, 10_000))
    assert not stale.exists()
    assert fresh.exists()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(b"not for the cache")
    path.symlink_to(target)


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 * MIB)


@pytest.mark.parametrize("make", [fifo, link, large])
def test_what_is_no_entry_is_removed_without_waiting_for_it(tmp_path: Path, make: Callable[[Path], None]) -> None:
    Cache(tmp_path, MIB).put("k", arrays(1))
    (entry,) = tmp_path.iterdir()
    entry.unlink()
    make(entry)
    cache = Cache(tmp_path, MIB)
    assert cache.get("k") is None
    assert not os.path.lexists(entry)
    cache.put("k", arrays(2))
    assert is_entry(Cache(tmp_path, MIB).get("k"), 2)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_rejected(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(PermissionError, match="chmod go-w"):
        Cache(tmp_path, MIB)
    assert open_cache(tmp_path, MIB) is None


def test_a_folder_that_others_can_read_is_accepted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Cache(tmp_path, MIB).put("k", arrays(1))


def test_a_folder_that_was_removed_is_created_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", MIB)
    (tmp_path / "cache").rmdir()
    cache.put("k", arrays(1))
    assert is_entry(Cache(tmp_path / "cache", MIB).get("k"), 1)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_an_entry_that_cannot_be_read_now_is_kept(tmp_path: Path) -> None:
    Cache(tmp_path, MIB).put("k", arrays(1))
    cache = Cache(tmp_path, MIB)
    lowest_free = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest_free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        assert cache.get("k") is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert is_entry(cache.get("k"), 1)
