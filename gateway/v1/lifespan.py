"""Open what the calls of `/v1` need, and run what goes on without a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager

from jobs.database import Database
from jobs.net.addresses import UrlRules
from jobs.net.client import UrlClient
from jobs.progress import ProgressHub
from jobs.store import Store

from ..service import Service
from ..settings import Settings
from .job_service import JobService

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_jobs(service: Service) -> AsyncIterator[JobService | None]:
    """Yield the state of `/v1`, or None without a database. A database that is away does not keep it from starting."""
    settings = service.settings
    if settings.database_url is None:
        yield None
        return
    store = await asyncio.to_thread(Store.open, settings.store)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(settings.database_url.get_secret_value()))
        urls = await stack.enter_async_context(UrlClient(_rules(settings)))
        v1 = JobService(settings, database, store, stack.enter_context(ProgressHub(database)), urls)
        await stack.enter_async_context(_background(v1.schema.prepare(database)))
        try:
            yield v1
        finally:
            v1.closing.set()


def _rules(settings: Settings) -> UrlRules:
    return UrlRules.of(
        settings.url_allowed_hosts,
        allow_http=settings.url_allow_http,
        seconds=settings.url_seconds,
        s3_buckets=settings.url_s3_buckets,
    )


@asynccontextmanager
async def _background(*work: Coroutine[object, None, None]) -> AsyncIterator[None]:
    """Run coroutines within the block, and cancel them at its end."""
    tasks = [asyncio.create_task(each) for each in work]
    for task in tasks:
        task.add_done_callback(_log_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.error("a task of the job queue ended with an error", exc_info=error)
