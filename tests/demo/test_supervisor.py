"""Children that are started again, on the small HTTP server of the standard library."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from demo import supervisor
from demo.child import START_SECONDS, Child
from demo.stack import database_server
from demo.supervisor import Supervisor, pause_before
from embedded.errors import DatabaseEnded
from embedded.ports import find_free
from embedded.postgres import database_url, socket_folder
from embedded.postgres_cluster import processes_in

SECONDS = 60.0


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    port = find_free()
    with Child(
        "http.server", (str(port), "--bind", "127.0.0.1"), f"http://127.0.0.1:{port}/", tmp_path / "log"
    ) as child:
        child.wait_until_ready()
        yield child


class Watched:
    """A supervisor with a clock of the test."""

    def __init__(self, child: Child) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.child = child
        self.supervisor = Supervisor([child], self.lines.append, lambda: self.now)

    def kill(self) -> None:
        self.child.process.kill()
        self.child.process.wait()
        self.supervisor.look()

    def ready(self) -> bool:
        self.supervisor.look()
        return "is ready again" in self.lines[-1]


def test_the_pause_doubles_up_to_a_limit() -> None:
    assert [pause_before(restart) for restart in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]


def test_a_child_that_ends_is_started_again_after_a_pause_and_reported(child: Child) -> None:
    watched = Watched(child)
    first = child.process.pid
    watched.kill()
    assert watched.lines == ["http.server ended by itself (signal 9 (SIGKILL)); restart 1 in 0.5 s"]
    watched.now = 0.4
    watched.supervisor.look()
    assert child.process.pid == first
    watched.now = 0.6
    _until(watched.ready)
    assert child.process.pid != first
    assert child.is_ready()


def test_the_pause_grows_until_the_child_was_stable_for_a_while(child: Child) -> None:
    watched = Watched(child)
    for restart, seconds in ((1, 0.5), (2, 1), (3, 2)):
        watched.kill()
        assert watched.lines[-1].endswith(f"restart {restart} in {seconds:g} s")
        watched.now += seconds
        _until(watched.ready)
    watched.now += supervisor.STABLE_SECONDS
    watched.supervisor.look()
    watched.kill()
    assert watched.lines[-1].endswith("restart 1 in 0.5 s")


def test_a_child_that_never_becomes_ready_is_killed_and_started_again(child: Child) -> None:
    watched = Watched(child)
    watched.kill()
    child.url = "http://127.0.0.1:9/"
    watched.now += 0.5
    watched.supervisor.look()
    second = child.process.pid
    watched.now += START_SECONDS + 1
    watched.supervisor.look()
    assert watched.lines[-1].startswith("http.server was not ready after 300 s; restart 2")
    assert not _runs(second)


def test_the_output_of_all_runs_is_kept(child: Child) -> None:
    assert child.log is not None
    watched = Watched(child)
    before = child.log.read_text()
    watched.kill()
    watched.now += 0.5
    _until(watched.ready)
    assert child.log.read_text().startswith(before)


def test_a_database_that_is_killed_is_started_again_with_what_was_committed(
    database_folder: Path, tmp_path: Path
) -> None:
    url = database_url(socket_folder(database_folder / "data"))
    with database_server(database_folder / "data", tmp_path) as child:
        child.wait_until_ready()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        watched = Watched(child)
        postmaster = int((database_folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        assert child.process.wait(SECONDS) == DatabaseEnded.exit_status
        watched.supervisor.look()
        assert watched.lines == ["embedded.postgres ended by itself (exit status 5); restart 1 in 0.5 s"]
        watched.now += 0.5
        _until(watched.ready)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT number FROM kept").fetchall() == [(42,)]
    assert not processes_in(database_folder / "data")


_OWNER = """
import sys, time
from pathlib import Path
from demo.child import START_SECONDS, Child
with Child("http.server", (sys.argv[1], "--bind", "127.0.0.1"), "", Path(sys.argv[2])) as child:
    print(child.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_child_does_not_outlive_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    argv = [sys.executable, "-c", _OWNER, str(find_free()), str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert _runs(pid)
        os.kill(owner.pid, number)
    _until(lambda: not _runs(pid))
