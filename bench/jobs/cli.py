"""`python -m bench jobs`: what reading a job, listing jobs and taking one cost while few and while many are queued."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from embedded.postgres import Postgres
from jobs.database import Database
from jobs.migrate import migrate
from jobs.records import Job, Submission
from jobs.repository import leases, read
from jobs.repository.submit import submit

from ..cli import DONE, add_json_output
from ..machine import processor_name

FEW, MANY = 10, 10_000
GOAL = 2.0  # times as long with MANY jobs as with FEW
CALLS = 200
LEASE = timedelta(seconds=60)
KEY_LIFETIME = timedelta(hours=1)
CLIENTS = 4  # that submit at the same time

Seconds = dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--jobs", type=int, default=MANY, metavar="N", help=f"jobs of the long queue (default: {MANY})")
    parser.add_argument("--calls", type=int, default=CALLS, metavar="N", help=f"calls of each kind (default: {CALLS})")
    add_json_output(parser, "jobs.json")


def run(args: argparse.Namespace) -> int:
    """Start a PostgreSQL of its own, measure, print the table, and write the JSON."""
    with tempfile.TemporaryDirectory(prefix="bench-jobs-") as folder:
        Path(folder).chmod(0o755)  # as root, the server runs as another user
        with Postgres(Path(folder) / "data", log=Path(folder) / "postgres.log") as server:
            few, many = asyncio.run(measure(server.url, args.jobs, args.calls))
    ratios = {kind: many[kind] / few[kind] for kind in few}
    print(table(args.jobs, few, many))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"cpu": processor_name(), "jobs": args.jobs, "few": few, "many": many, "ratios": ratios}
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {args.out}")
    return DONE


async def measure(url: str, many: int, calls: int) -> tuple[Seconds, Seconds]:
    """Return the median seconds of each kind of call, with FEW queued jobs and with `many`."""
    async with Database(url) as database:
        await migrate(database)
        await _fill(database, FEW)
        with_few = await _time_calls(database, calls)
        await _fill(database, many - FEW)
        await database.fetch("SELECT count(*) FROM jobs")  # pages that were just written are read once
        # as autovacuum does within a minute; until then PostgreSQL plans for the few jobs that it last saw
        async with database.connection() as connection:
            await connection.execute("ANALYZE jobs")
        return with_few, await _time_calls(database, calls)


def table(jobs: int, few: Seconds, many: Seconds) -> str:
    """Return the Markdown table of a run."""
    rows = [
        f"| {kind} | {few[kind] * 1e3:.2f} ms | {many[kind] * 1e3:.2f} ms | {many[kind] / few[kind]:.2f} |"
        for kind in few
    ]
    header = f"| median of a call | {FEW} queued | {jobs} queued | ratio (goal: at most {GOAL:g}) |"
    return "\n".join([header, "|---|---|---|---|", *rows])


async def _fill(database: Database, count: int) -> None:
    async def client(share: int) -> None:
        for _ in range(share):
            await submit(database, Submission(uuid.uuid4(), {}, digest=""), KEY_LIFETIME)

    shares = [count // CLIENTS + (index < count % CLIENTS) for index in range(CLIENTS)]
    await asyncio.gather(*map(client, shares))


async def _time_calls(database: Database, calls: int) -> Seconds:
    """Time calls as the HTTP API and a worker make them. The jobs that are taken are given back at once."""
    newest = (await read.page(database, "", limit=1))[0]
    worker = uuid.uuid4()

    async def read_one() -> None:
        await _read_with_place(database, newest)

    async def read_page() -> None:
        await read.page(database, "", limit=FEW)

    async def take() -> None:
        lease = await leases.claim(database, worker, LEASE, max_attempts=calls * 100)
        assert lease is not None  # noqa: S101 - there are always more jobs than this client holds
        await leases.give_back(database, lease, timedelta(0), counts=False)

    kinds: dict[str, Callable[[], Awaitable[None]]] = {
        "read a job and its place": read_one,
        "list jobs": read_page,
        "take a job and give it back": take,
    }
    return {kind: await _median(call, calls) for kind, call in kinds.items()}


async def _read_with_place(database: Database, job: Job) -> None:
    await read.place(database, await read.get(database, job.tenant, job.id))


async def _median(call: Callable[[], Awaitable[None]], calls: int) -> float:
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
