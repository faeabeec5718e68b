"""`python -m jobs`: the commands of the job queue.

Exit status: 0 done, 1 the database cannot be used, 2 a setting or an argument is invalid.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence

from avatar.settings import BadSetting, load

from .settings import ServiceSettings

_STATUS = "Exit status: 0 done, 1 the database cannot be used, 2 a setting or an argument is invalid."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs",
        description="The job queue of the talking-avatar service. The settings are those of the gateway: AVATAR_… "
        "variables, see docs/reference/settings.md.",
        epilog=_STATUS,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    migrate = commands.add_parser(
        "migrate",
        help="create the tables of the database, or bring them up to date",
        description="Create the tables in the database of AVATAR_DATABASE_URL, or bring them up to date. Steps that "
        "were applied before are left out, and several processes may do this at the same time.",
        epilog=_STATUS,
        allow_abbrev=False,
    )
    migrate.set_defaults(run=_checked(_migrate))
    return parser


async def _migrate(settings: ServiceSettings) -> int:
    # here and below, because it loads the driver: --help and usage errors need not wait
    from .database import Database
    from .migrate import migrate

    async with Database(_url(settings)) as database:
        for step in await migrate(database):
            print(f"applied {step}")
    print("the database is up to date")
    return 0


def _url(settings: ServiceSettings) -> str:
    if settings.database_url is None:
        raise BadSetting("AVATAR_DATABASE_URL: no database is given; set it to postgresql://user:password@host/name")
    return settings.database_url.get_secret_value()


def _checked(command: Callable[[ServiceSettings], Awaitable[int]]) -> Callable[[argparse.Namespace], int]:
    """Return the command as a function of its arguments, which reads the settings and turns errors into a sentence."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            settings = load(ServiceSettings)
        except BadSetting as error:
            return _fail(str(error), 2)
        logging.basicConfig(
            level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
        )
        from .errors import DatabaseUnavailable
        from .migrate import SchemaMismatch

        async def main() -> int:
            return await command(settings)

        try:
            return asyncio.run(main())
        except BadSetting as error:
            return _fail(str(error), 2)
        except (DatabaseUnavailable, SchemaMismatch) as error:
            return _fail(str(error), 1)

    return run


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
