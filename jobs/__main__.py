"""`python -m jobs`: the commands of the job queue.

Exit status: 0 done, or stopped by a signal, 1 the database or something else that the command needs cannot be used, 2 a
setting or an argument is invalid.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from avatar.settings import BadSetting, load, warn_of_old_names

from . import keys_cli, logging_config
from .settings import WorkerSettings

_STATUS = (
    "Exit status: 0 done, or stopped by a signal, 1 the database or something else that the command needs cannot be "
    "used, 2 a setting or an argument is invalid."
)

Command = Callable[[argparse.Namespace, WorkerSettings, str], Awaitable[int]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs",
        description="The job queue of the talking-avatar service. The settings are AVATAR_… variables, most of them "
        "those of the gateway.",
        epilog=_STATUS,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    worker = commands.add_parser(
        "worker",
        help="run jobs until a signal",
        description="Run jobs of the queue. The database needs its tables (`migrate`), and the store and Triton are "
        "those of the gateway. At the first SIGTERM or SIGINT no more jobs are taken, and running jobs have "
        "AVATAR_SHUTDOWN_GRACE seconds to finish; then, or at a second signal, they are given back to the queue.",
        epilog=_STATUS,
        allow_abbrev=False,
    )
    # No types and defaults here: the settings validate the values and hold the defaults.
    worker.add_argument(
        "--concurrency", dest="worker_jobs", metavar="N", help="jobs at the same time (AVATAR_WORKER_JOBS)"
    )
    worker.add_argument("--host", dest="worker_host", help="address of /health and /metrics (AVATAR_WORKER_HOST)")
    worker.add_argument("--port", dest="worker_port", help="their port; 0: none (AVATAR_WORKER_PORT)")
    worker.add_argument(
        "--triton",
        dest="triton_url",
        metavar="HOST:PORT",
        help="gRPC address of Triton, or several (AVATAR_TRITON_URL)",
    )
    worker.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error (AVATAR_LOG_LEVEL)")
    worker.set_defaults(run=_checked(_worker))
    migrate = commands.add_parser(
        "migrate",
        help="create the tables of the database, or bring them up to date",
        description="Create the tables in the database of AVATAR_DATABASE_URL, or bring them up to date. Steps that "
        "were applied before are left out, and several processes may do this at the same time.",
        epilog=_STATUS,
        allow_abbrev=False,
    )
    migrate.set_defaults(run=_checked(_migrate))
    sweep = commands.add_parser(
        "sweep",
        help="remove what is over its time, and what killed processes left",
        description="Remove results, records and kept faces that are over their time, and files in the store that no "
        "job needs. Every gateway and worker does this by itself: each minute, and for such files each hour.",
        epilog=_STATUS,
        allow_abbrev=False,
    )
    sweep.add_argument(
        "--grace",
        type=_hours,
        default=timedelta(hours=1),
        metavar="HOURS",
        help="age from which a file that no job needs is removed; a younger one may be on its way (default: 1)",
    )
    sweep.set_defaults(run=_checked(_sweep))
    keys_cli.add_parser(commands)
    return parser


def _hours(text: str) -> timedelta:
    try:
        hours = float(text)
        if not 0 <= hours <= 1e6:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hours from 0 on") from None
    return timedelta(hours=hours)


async def _worker(arguments: argparse.Namespace, settings: WorkerSettings, url: str) -> int:
    # here and below, because they load much: --help and usage errors need not wait
    from avatar import tracing
    from avatar.media.start import prepare

    from . import worker_process

    if failure := await prepare(settings):
        return _fail(failure, 1)
    exporting = tracing.exporting(settings.otlp_endpoint, "talking-avatar-worker")
    with exporting, suppress(asyncio.CancelledError):  # by a signal while it starts
        await worker_process.run(settings, url)
    return 0


async def _migrate(arguments: argparse.Namespace, settings: WorkerSettings, url: str) -> int:
    from .database import Database
    from .migrate import migrate

    async with Database(url) as database:
        for step in await migrate(database):
            print(f"applied {step}")
    print("the database is up to date")
    return 0


async def _sweep(arguments: argparse.Namespace, settings: WorkerSettings, url: str) -> int:
    from .database import Database
    from .migrate import check
    from .store import Store
    from .sweep import sweep

    store = await asyncio.to_thread(Store.open, settings.store)
    async with Database(url) as database:
        await check(database)
        swept = await sweep(database, store, settings, arguments.grace, compare=True)
    if swept is None:
        print("another process sweeps at this moment")
    else:
        print(
            f"removed {swept.results} results, {swept.records} records of jobs, {swept.avatars} kept faces, and "
            f"{swept.files} files that no job needs"
        )
    return 0


def _checked(command: Command) -> Callable[[argparse.Namespace], int]:
    """Return the command as a function of its arguments, which reads the settings and turns errors into a sentence."""

    def run(arguments: argparse.Namespace) -> int:
        given = {name: value for name, value in vars(arguments).items() if name in WorkerSettings.model_fields}
        try:
            settings = load(WorkerSettings, **given)
            if settings.database_url is None:
                raise BadSetting(
                    "AVATAR_DATABASE_URL: no database is given; set it to postgresql://user:password@host/name"
                )
        except BadSetting as error:
            return _fail(str(error), 2)
        logging_config.configure(settings.log_level, settings.log_format)
        warn_of_old_names(WorkerSettings, logging.getLogger("jobs"))
        return _run(command(arguments, settings, settings.database_url.get_secret_value()))

    return run


def _run(command: Awaitable[int]) -> int:
    import psycopg

    from avatar.errors import Unavailable

    from .migrate import SchemaMismatch

    async def main() -> int:
        return await command

    try:
        return asyncio.run(main())
    except BadSetting as error:
        return _fail(str(error), 2)
    except (Unavailable, SchemaMismatch) as error:
        return _fail(str(error), 1)
    except psycopg.Error as error:
        return _fail(f"the database refuses: {str(error).partition(chr(10))[0]}", 1)
    except OSError as error:
        return _fail(os.strerror(error.errno) if error.errno and error.errno > 0 else str(error), 1)
    except ValueError as error:  # of the address of the store
        return _fail(f"AVATAR_STORE: {error}", 2)


def _fail(message: str, status: int) -> int:
    print(f"python -m jobs: {message}", file=sys.stderr)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    arguments = _parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
