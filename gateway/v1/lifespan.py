"""Open what the calls of `/v1` need, and run what goes on without a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from jobs.background import background
from jobs.database import Database
from jobs.net.client import UrlClient
from jobs.progress import ProgressHub
from jobs.store import Store
from jobs.sweep import sweep_forever
from jobs.webhook_delivery import delivering_webhooks
from jobs.worker import Worker

from ..job_service import JobService
from ..metrics import Metrics
from ..service import Service

logger = logging.getLogger(__name__)

CONNECTIONS = 8  # to the database, for requests; every job that runs here may need one more


@asynccontextmanager
async def open_jobs(service: Service, metrics: Metrics) -> AsyncIterator[JobService | None]:
    """Yield the state of `/v1`, or None without a database. A database that is away does not keep it from starting.

    Within the block the gateway runs jobs of the queue, as many at the same time as the settings say.
    """
    settings = service.settings
    if settings.database_url is None:
        yield None
        return
    store = await asyncio.to_thread(Store.open, settings.store, settings.store_public_endpoint)
    url, slots = settings.database_url.get_secret_value(), settings.worker_count
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(url, size=CONNECTIONS + slots))
        urls = await stack.enter_async_context(UrlClient(settings.url_rules))
        progress = stack.enter_context(ProgressHub(database))
        worker = _worker(service, metrics, database, store, urls) if slots else None
        v1 = JobService(settings, database, store, progress, urls, worker)
        async with _working(v1):
            yield v1


def _worker(service: Service, metrics: Metrics, database: Database, store: Store, urls: UrlClient) -> Worker:
    """Return a worker that shares the places of this machine with the forms."""
    return Worker(
        database,
        store,
        urls,
        service.models,
        service.render,
        service.settings,
        service.workspace,
        slots=service.settings.worker_count,
        admission=service.jobs,
        report=metrics.worker,
        before=service.machine.check_failing,
    )


@asynccontextmanager
async def _working(v1: JobService) -> AsyncIterator[None]:
    """Prepare the database within the block, then run jobs; at the end, wait for the running ones."""
    async with background(_work(v1)) as work:
        try:
            yield
        finally:
            if not v1.closing.is_set():  # the server has closed it, with a grace, unless there is none
                v1.close(0)
            if v1.schema.ready and v1.worker:
                await asyncio.wait((work,))


async def _work(v1: JobService) -> None:
    await v1.schema.prepare(v1.database)
    if v1.worker is None:  # the workers of other processes send webhooks and sweep, too
        return
    sweeping = sweep_forever(v1.database, v1.store, v1.settings)
    async with delivering_webhooks(v1.database, v1.urls, v1.settings), background(sweeping):
        await v1.worker.run()
