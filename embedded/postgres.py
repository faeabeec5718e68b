"""PostgreSQL as an owned child, for machines without Docker: `python -m embedded.postgres --data DIR`.

The server listens on a socket in a folder that only its user can enter, and on TCP only if a port is given. It never
outlives its owner.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote, urlencode

from .errors import BadDatabase, DatabaseEnded, EmbeddedError
from .ports import HOST
from .postgres_cluster import ROLE, Cluster, kill, processes_in
from .postgres_programs import find_programs
from .watchdog import Watchdog, kill_group

START_SECONDS = 120.0  # after a crash, the server first replays its log
STOP_SECONDS = 30.0
_QUIT_SECONDS = 5.0
DEFAULT_PORT = 5432  # without TCP it is only a part of the socket's name
_SOCKET_BYTES = 107  # limit of the kernel for the path of a socket
_IO_METHOD_SINCE = 18
_OTHER_SOCKET = "choose another folder for the socket: --socket"
# For a small machine: a queue of jobs needs little memory, and rather few processes than the fastest scan.
SETTINGS = {
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_size": "256MB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "huge_pages": "off",
    "max_logical_replication_workers": "0",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    # in the data folder: a killed server leaves nothing in /dev/shm, which is small in containers
    "dynamic_shared_memory_type": "mmap",
}


def socket_folder(data: Path) -> Path:
    """Return the default folder of the socket: in the data folder, or a short one where that path is too long."""
    folder = data.absolute() / "socket"
    if len(os.fsencode(folder)) <= _SOCKET_BYTES - len("/.s.PGSQL.65535"):
        return folder
    return Path(tempfile.gettempdir()) / f"avatar-postgres-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"


def database_url(socket: Path, port: int = DEFAULT_PORT, database: str = "postgres") -> str:
    """Return the URL of a server whose socket is in this folder."""
    options = {"host": str(socket), "user": ROLE} | ({"port": str(port)} if port != DEFAULT_PORT else {})
    return f"postgresql:///{quote(database)}?{urlencode(options, quote_via=quote)}"


def is_ready(url: str, programs: Path | None = None) -> bool:
    """Return whether the server accepts connections."""
    argv = [str((programs or find_programs()) / "pg_isready"), "--quiet", "--timeout=3", f"--dbname={url}"]
    return subprocess.run(argv, check=False, stderr=subprocess.DEVNULL).returncode == 0


class Postgres:
    """A server for one data folder; as a context manager it runs inside the block."""

    def __init__(
        self,
        data: Path,
        socket: Path | None = None,
        *,
        port: int | None = None,
        programs: Path | None = None,
        log: Path | None = None,
        fsync: bool = True,
    ) -> None:
        """Describe a server; nothing is started or written.

        Args:
            data: its data folder; it is made if it is new.
            socket: folder for its socket (default: `socket_folder(data)`).
            port: for TCP on 127.0.0.1 too, with a password.
            programs: folder of the PostgreSQL to use (default: the wheel's).
            log: file that its output is appended to (default: our stderr).
            fsync: off, a crash of the machine destroys the data; only for tests.
        """
        self._cluster = Cluster.at(data, programs)
        self.socket = (socket or socket_folder(data)).absolute()
        self._port, self._tcp = port or DEFAULT_PORT, port is not None
        self._log, self._fsync = log, fsync
        self._server: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None

    @property
    def url(self) -> str:
        """Return the URL for clients on this machine."""
        return database_url(self.socket, self._port)

    def url_of(self, database: str) -> str:
        """Return the URL of another database of the server."""
        return database_url(self.socket, self._port, database)

    @property
    def data(self) -> Path:
        """Return the data folder."""
        return self._cluster.data

    @property
    def pid(self) -> int:
        """Return the id of the server's first process, the postmaster."""
        if self._server is None:
            raise EmbeddedError("PostgreSQL is not running")
        return self._server.pid

    def start(self) -> None:
        """Start the server, and return when it accepts connections.

        Raises:
            EmbeddedError: the folder cannot be used, or the server did not start; the message says what to do.
        """
        self._cluster = self._cluster.prepare(sync=self._fsync)
        with self._cluster.alone():
            self._cluster.check_unused()
            self._prepare_socket_folder()
            self._watchdog = Watchdog()
            try:
                self._start()
                self._wait_until_ready()
            except BaseException:
                self.stop()
                raise

    def _start(self) -> None:
        with ExitStack() as files:
            output = files.enter_context(self._log.open("ab")) if self._log else sys.stderr
            self._server = subprocess.Popen(
                [str(self._cluster.programs / "postgres"), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **self._cluster.account.popen_options(),
            )
        if self._watchdog is not None:
            self._watchdog.watch(self._server.pid, signal.SIGQUIT)

    def wait(self, timeout: float | None = None) -> None:
        """Return after `timeout` seconds, or never.

        Raises:
            DatabaseEnded: the server ended by itself.
        """
        if self._server is None:
            raise EmbeddedError("PostgreSQL is not running")
        with suppress(subprocess.TimeoutExpired):
            raise DatabaseEnded(f"PostgreSQL ended by itself (exit status {self._server.wait(timeout)}){self._hint()}")

    def stop(self) -> None:
        """Stop the server: connections are closed, what was committed is on the disk. A second call has no effect."""
        try:
            for number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, _QUIT_SECONDS)):
                if self._server is not None and self._server.poll() is None:
                    self._server.send_signal(number)  # SIGTERM would wait for the clients
                    with suppress(subprocess.TimeoutExpired):
                        self._server.wait(seconds)
        finally:  # even if the wait is interrupted
            self._kill()

    def _kill(self) -> None:
        if self._server is not None:
            kill_group(self._server.pid)
            self._server.wait()
            if self._cluster.postmaster() == self._server.pid:  # it did not stop cleanly
                kill(processes_in(self._cluster.data))  # each is a group of its own
            self._server = None
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None

    def _arguments(self) -> list[str]:
        settings = SETTINGS | {
            "listen_addresses": HOST if self._tcp else "",
            "port": str(self._port),
            "unix_socket_directories": f'"{self.socket}"',
            "unix_socket_permissions": "0700",
            "fsync": "on" if self._fsync else "off",
        }
        if not self._fsync:
            settings["full_page_writes"] = "off"
        if self._cluster.major >= _IO_METHOD_SINCE:
            settings["io_method"] = "sync"  # three processes fewer
        return ["-D", str(self._cluster.data), *(f"--{name}={value}" for name, value in settings.items())]

    def _prepare_socket_folder(self) -> None:
        """Make the folder private to the server's user; it is what keeps other users of this machine out."""
        folder, account = self.socket, self._cluster.account
        if len(os.fsencode(folder / f".s.PGSQL.{self._port}")) > _SOCKET_BYTES:
            raise BadDatabase(f"{folder}: too long for the path of a socket ({_SOCKET_BYTES} bytes); {_OTHER_SOCKET}")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            status = folder.stat()
            if status.st_uid != account.uid or status.st_mode & 0o077:
                raise BadDatabase(f"{folder} is in use, and is not private to user {account.uid}; {_OTHER_SOCKET}")
        elif folder.stat().st_uid in {account.uid, os.geteuid()}:
            account.give(folder)
        else:
            raise BadDatabase(f"{folder} belongs to another user; {_OTHER_SOCKET}")
        account.check_reach(folder, _OTHER_SOCKET)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._server is not None and (status := self._server.poll()) is not None:
                raise BadDatabase(f"PostgreSQL stopped while starting (exit status {status}){self._hint()}")
            if is_ready(self.url, self._cluster.programs):
                return
            time.sleep(0.02)
        raise BadDatabase(f"PostgreSQL was not ready after {START_SECONDS:.0f} s{self._hint()}")

    def _hint(self) -> str:
        """Return where to look, with the last lines of the log if there is one."""
        if self._log is None:
            return "; its last lines above say why"
        lines = self._log.read_text("utf-8", errors="replace").splitlines()[-5:]
        return f", see {self._log}:\n" + "\n".join(lines)

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    args = _parser().parse_args(argv)
    # SIGTERM has the same effect as Ctrl-C. SIGINT is set too, because a shell's `&` starts processes that ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        if args.show_programs:
            print(find_programs())
            return 0
        with Postgres(args.data, args.socket, port=args.port, programs=args.programs) as server:
            print(f"ready: {server.url}", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return 0
    except (EmbeddedError, OSError) as error:
        print(f"postgres: {error}", file=sys.stderr, flush=True)
        return error.exit_status if isinstance(error, EmbeddedError) else 1
    return 1  # not reached: waiting ends with an exception


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m embedded.postgres",
        description="Run PostgreSQL from its PyPI wheel until Ctrl-C or SIGTERM. If you are root, it runs as the owner "
        "of the data folder, or as nobody.",
        epilog="Exit status: 0 stopped by Ctrl-C or SIGTERM, 1 the start failed, 2 wrong usage, 5 the server ended by "
        "itself. With 5 nothing is left running: start it again.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, metavar="DIR", help="data folder; it is made if it is new")
    what.add_argument(
        "--show-programs",
        action="store_true",
        help="print the folder of pg_dump, psql and the other programs, and exit",
    )
    parser.add_argument(
        "--socket", type=Path, metavar="DIR", help="folder for the socket, private to the server (default: in --data)"
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help="listen on 127.0.0.1:N too; that needs a password, which `ALTER ROLE avatar PASSWORD …` sets (default: "
        "only the socket)",
    )
    parser.add_argument(
        "--programs", type=Path, metavar="DIR", help="folder of another PostgreSQL's programs (default: the wheel's)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
