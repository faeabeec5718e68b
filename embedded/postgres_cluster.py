"""A PostgreSQL cluster on the disk: the programs, the user that owns it, and its data folder.

The folder is filled by `initdb` on first use. Before a start it is checked for what PostgreSQL would report only in its
log, or not at all: another major version, another owner, a folder that the server's user cannot reach.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import BadDatabase, DatabaseBusy
from .postgres_programs import OWN_SERVER, copy_programs, find_programs, is_wheel

ROLE = "avatar"  # PostgreSQL's name for the owner of everything in the cluster
_NOBODY = 65534  # the usual number of the user and of the group without rights
_BUILTIN_LOCALE_SINCE = 17
_ORPHAN_SECONDS = 5.0  # the processes of a killed server end by themselves, usually within a second
_PID_FILE = "postmaster.pid"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Account:
    """The user and group that PostgreSQL runs as. It refuses to run as root."""

    uid: int
    gid: int

    @classmethod
    def of(cls, data: Path) -> Account:
        """Return this process's own account; for root that of the data folder's owner, or of nobody."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        with suppress(OSError):
            if (status := data.stat()).st_uid != 0:
                return cls(status.st_uid, status.st_gid)
        return cls(_NOBODY, _NOBODY)

    def popen_options(self) -> dict[str, Any]:
        """Return the options of subprocess that start a program as this user, with nothing of our environment."""
        options: dict[str, Any] = {"cwd": os.sep, "env": {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}}
        if os.geteuid() == 0:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def give(self, folder: Path) -> None:
        """Make the folder private to this user."""
        folder.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(folder, self.uid, self.gid)

    def check_reach(self, path: Path, advice: str) -> None:
        """Raise BadDatabase, with `advice`, if a parent folder of `path` is closed to this user."""
        for folder in filter(Path.exists, reversed(path.parents)):
            status = folder.stat()
            shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
            if self.uid != 0 and not (status.st_mode >> shift) & 1:
                raise BadDatabase(
                    f"{path} cannot be reached by user {self.uid}, as which PostgreSQL runs because it refuses root: "
                    f"{folder} is closed to that user (mode {status.st_mode & 0o777:04o}); {advice}"
                )


@dataclass(frozen=True)
class Cluster:
    """A data folder, and the programs and the account that it is used with."""

    data: Path
    programs: Path
    account: Account

    @classmethod
    def at(cls, data: Path, programs: Path | None = None) -> Cluster:
        """Return the cluster in a folder, which need not exist yet; by default with the programs of the wheel."""
        data = data.absolute()
        return cls(data, programs or find_programs(), Account.of(data))

    def prepare(self, *, sync: bool = True) -> Cluster:
        """Fill the data folder if it is new, check it, and return the cluster with programs that its user can run.

        Args:
            sync: whether a new cluster is on the disk when this returns.

        Raises:
            BadDatabase: PostgreSQL cannot use the folder; the message says what to do.
        """
        self.account.check_reach(self.data, _OTHER_FOLDER)
        self.data.mkdir(parents=True, exist_ok=True)
        self._check_owner()
        with self.alone() as lock:
            cluster = replace(self, programs=self._usable_programs())
            if not any(self.data.iterdir()):
                cluster._create(lock, sync=sync)
        cluster._check_version()
        return cluster

    def _usable_programs(self) -> Path:
        """Return the programs, or a copy next to the data folder if their own folder is closed to the user."""
        try:
            self.account.check_reach(self.programs / "postgres", f"open it to others (chmod o+x), {OWN_SERVER}")
        except BadDatabase:
            if not is_wheel(self.programs):
                raise
            return copy_programs(self.programs, self.data.with_name(f".{self.data.name}.programs"))
        return self.programs

    @contextmanager
    def alone(self) -> Iterator[int]:
        """Let one process at a time make a cluster here or start it; yield the descriptor that holds the lock."""
        while True:
            descriptor = os.open(self.data, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(descriptor), self.data.stat()):  # not the one that a new cluster replaced
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def _check_owner(self) -> None:
        owner = self.data.stat().st_uid
        if owner == self.account.uid or (os.geteuid() == 0 and not any(self.data.iterdir())):
            return
        raise BadDatabase(
            f"{self.data} belongs to user {owner}, and PostgreSQL would run as user {self.account.uid}: start as the "
            f"owner (as root, if that is user {_NOBODY}), or run: chown -R {self.account.uid}:{self.account.gid} "
            f"{self.data}"
        )

    def _create(self, lock: int, *, sync: bool) -> None:
        """Run `initdb` in a folder next to the data folder, and rename it: a half-made cluster is never used."""
        made = self.data.with_name(f".{self.data.name}.initdb")
        shutil.rmtree(made, ignore_errors=True)  # of a start that was killed
        made.mkdir()
        try:
            self.account.give(made)
            argv = [str(self.programs / "initdb"), "-D", str(made), *initdb_arguments(self.major)]
            argv += [] if sync else ["--no-sync"]
            # `initdb` holds the lock too, and so it is not disturbed if this process is killed
            done = subprocess.run(
                argv, capture_output=True, check=False, pass_fds=(lock,), text=True, **self.account.popen_options()
            )
            if done.returncode:
                raise BadDatabase(f"initdb failed for {self.data}: {done.stderr.strip()[-2000:]}")
            try:
                made.replace(self.data)
            except OSError as error:
                raise BadDatabase(
                    f"{self.data} cannot be replaced by the new cluster ({error.strerror}); if it is a mount point, "
                    "choose a folder below it"
                ) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)

    @property
    def major(self) -> int:
        """Return the major version of the programs."""
        argv = [str(self.programs / "postgres"), "--version"]
        done = subprocess.run(argv, capture_output=True, check=True, text=True)
        return int(done.stdout.split("(PostgreSQL)")[1].split(".")[0])  # `postgres (PostgreSQL) 18.6`

    def _check_version(self) -> None:
        try:
            found = (self.data / "PG_VERSION").read_text("ascii").strip()
        except OSError as error:
            raise BadDatabase(
                f"{self.data} is not empty, and is no data folder of PostgreSQL; {_OTHER_FOLDER}"
            ) from error
        if found != str(self.major):
            raise BadDatabase(
                f"{self.data} was made by PostgreSQL {found}, which this one, {self.major}, cannot read: dump it with "
                f"PostgreSQL {found} and restore it into a new folder, as docs/operations/database.md describes, "
                f"or {_OTHER_FOLDER}"
            )

    def check_unused(self) -> None:
        """Check that no server uses the folder, and wait for the end of the processes of one that was killed.

        Raises:
            DatabaseBusy: a running server uses it.
        """
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while (pid := self.postmaster()) is not None:
            if pid in (users := processes_in(self.data)):
                raise DatabaseBusy(
                    f"{self.data} is used by a running PostgreSQL (process {pid}): stop it, or {_OTHER_FOLDER}"
                )
            if not users:
                break
            if time.monotonic() > deadline:
                kill(users)
            time.sleep(0.05)
        if pid is not None:
            with suppress(OSError):
                os.kill(pid, 0)
                (self.data / _PID_FILE).unlink()  # another process has that number, as after a restart of the machine

    def postmaster(self) -> int | None:
        """Return the number of the server's first process, which may have been killed; None after a clean stop."""
        try:
            return int((self.data / _PID_FILE).read_text("ascii").split("\n", 1)[0])
        except (OSError, ValueError):
            return None


_OTHER_FOLDER = f"choose another folder: AVATAR_DATABASE_DIR, {OWN_SERVER}"


def initdb_arguments(major: int) -> list[str]:
    """Return the arguments of `initdb` but for the folder: UTF-8 everywhere, and no password within the machine.

    The folder of the socket lets only one user in. A connection over TCP, which is off by default, needs a password.
    """
    locale = ["--locale=C.UTF-8"]
    if major >= _BUILTIN_LOCALE_SINCE:  # then it does not depend on the machine's C library
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    access = ["--auth-local=trust", "--auth-host=scram-sha-256"]
    return ["--username", ROLE, "--encoding=UTF8", *locale, *access, "--no-instructions"]


def processes_in(data: Path) -> set[int]:
    """Return the processes of PostgreSQL that work in the data folder, also of a server that was killed."""
    found: set[int] = set()
    for entry in _PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or belongs to another user, which PostgreSQL's processes do not
            if (entry / "comm").read_text().strip() == "postgres" and (entry / "cwd").samefile(data):
                found.add(int(entry.name))
    return found


def kill(pids: Iterable[int]) -> None:
    """Kill processes, of which some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
