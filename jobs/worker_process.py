"""The process of `python -m jobs worker`: jobs, webhooks, the sweep, and the two pages, until a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_client import CollectorRegistry, ProcessCollector

from avatar.media.self_test import SELF_TEST
from avatar.resources.cache import open_cache
from avatar.settings import MIB

from .background import background
from .database import Database
from .errors import DatabaseUnavailable
from .migrate import SchemaMismatch, check
from .net.client import UrlClient
from .render_metrics import RenderMetrics
from .runtime import connect_models, greet_models, open_workspace, real_job
from .settings import WorkerSettings
from .store import Store
from .sweep import sweep_forever
from .triton_metrics import TritonMetrics
from .webhook_delivery import delivering_webhooks
from .worker import Worker
from .worker_metrics import WorkerMetrics
from .worker_server import pages

logger = logging.getLogger("jobs")

START_SECONDS = 60.0  # for which a worker that starts waits for the database and its tables
_PAUSE = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def run(settings: WorkerSettings, url: str) -> None:
    """Run jobs until a signal; a second signal gives the running jobs back at once.

    Raises:
        CancelledError: a signal came before the worker had started.
        DatabaseUnavailable, SchemaMismatch: the database cannot be used.
        OSError: the work folder or the port cannot be used.
        StorageFault: the store cannot be opened.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    _end_by_signal()
    async with AsyncExitStack() as stack:
        store = await asyncio.to_thread(Store.open, settings.store)
        database = await stack.enter_async_context(Database(url, size=settings.worker_jobs + 4))
        await _wait_for_tables(database)
        models = connect_models(settings)
        stack.push_async_callback(models.close)
        await stack.enter_async_context(background(greet_models(models, settings)))
        TritonMetrics(registry).watch(models)
        workspace = await stack.enter_async_context(open_workspace(settings))
        cache = await asyncio.to_thread(open_cache, settings.cache_dir, settings.cache_mib * MIB)
        urls = await stack.enter_async_context(UrlClient(settings.url_rules))
        worker = Worker(
            database,
            store,
            urls,
            models,
            await asyncio.to_thread(real_job, settings, cache),
            settings,
            workspace,
            slots=settings.worker_jobs,
            report=WorkerMetrics(registry, RenderMetrics(registry).observe),
            before=SELF_TEST.check_failing,
        )
        if settings.worker_port:
            checks = {"database": database.check, "models": models.check_ready, "ffmpeg": SELF_TEST.check_failing}
            await stack.enter_async_context(pages(settings.worker_host, settings.worker_port, registry, checks))
        await stack.enter_async_context(delivering_webhooks(database, urls, settings))
        await stack.enter_async_context(background(sweep_forever(database, store, settings)))
        await stack.enter_async_context(_stopping_by_signal(worker, settings.shutdown_grace))
        logger.info("worker %s runs up to %d jobs at the same time", worker.id, settings.worker_jobs)
        await worker.run()
    logger.info("stopped")


def _end_by_signal() -> None:
    """Let a signal cancel the current task, until the worker runs and handles signals itself."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - within a coroutine
    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def _wait_for_tables(database: Database) -> None:
    """Return as soon as the database has the tables of this version. Raises what `check` does after START_SECONDS."""
    end = time.monotonic() + START_SECONDS
    complaint = ""
    while True:
        try:
            return await check(database)
        except (DatabaseUnavailable, SchemaMismatch) as error:
            if time.monotonic() > end:
                raise
            if str(error) != complaint:
                complaint = str(error)
                logger.warning("waiting for the database: %s", complaint)
        await asyncio.sleep(_PAUSE)


@asynccontextmanager
async def _stopping_by_signal(worker: Worker, grace: float) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        logger.info("stopping; %d running jobs have %g s to finish", worker.running, 0 if signals > 1 else grace)
        worker.stop(0 if signals > 1 else grace)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
