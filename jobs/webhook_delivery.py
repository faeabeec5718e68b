"""Send the webhooks of the outbox: at least once, with the same id each time, in no promised order."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from .background import background
from .database import Database
from .errors import DatabaseUnavailable, LeaseLost
from .net.client import UrlClient
from .net.errors import RefusedUrl, RequestFailed
from .net.post import post
from .queue import channel
from .repository import webhooks
from .repository.webhooks import GONE, DueWebhook
from .settings import ServiceSettings
from .webhooks import Signer

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0  # that a receiver has to answer
PAUSES = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)  # seconds before the attempts after the first; the last one repeats
CONCURRENCY = 8  # webhooks that a process sends at the same time
POLL_SECONDS = 2.0  # between two looks for webhooks whose pause is over; new ones are notified
_GATHER_SECONDS = 0.05  # after a notification, which every job causes: a burst of them is one look
_JITTER = 0.1  # of a pause, so that receivers that come back do not get everything at one moment


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt: the status of the answer, if there was one, and why it counts as failed, if it does."""

    status: int | None
    error: str | None


class WebhookDelivery:
    """Delivers webhooks until it is cancelled. Any number of processes may do so at the same time.

    Args:
        urls: refuses private addresses and follows no redirect.
        lifetime: after which a webhook that was not delivered has failed.
        lease: after which the webhook of a deliverer that was killed is tried again.
        pauses: see PAUSES.
    """

    def __init__(
        self,
        database: Database,
        urls: UrlClient,
        signer: Signer,
        *,
        lifetime: timedelta,
        lease: timedelta,
        pauses: Sequence[float] = PAUSES,
        answer_seconds: float = ANSWER_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._database, self._urls, self._signer = database, urls, signer
        self._lifetime, self._lease, self._pauses = lifetime, lease, pauses
        self._answer_seconds, self._poll_seconds = answer_seconds, poll_seconds
        self._id = uuid4()
        self._places = asyncio.Semaphore(CONCURRENCY)
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Deliver until cancelled; what is being sent then is sent again by another process, or after a start."""
        stop_listening = self._database.listen(channel(), lambda _: self._news.set())
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._places.acquire()
                    group.create_task(self._deliver(await self._next()))
        finally:
            stop_listening()

    async def _next(self) -> DueWebhook:
        while True:
            self._news.clear()
            try:
                if due := await webhooks.claim(self._database, self._id, self._lease):
                    return due
            except DatabaseUnavailable as error:
                logger.warning("webhooks wait: %s", error)
            except Exception:  # one webhook must not end the delivery of all
                logger.exception("a webhook cannot be taken from the queue")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._news.wait()
                    await asyncio.sleep(_GATHER_SECONDS)

    async def _deliver(self, due: DueWebhook) -> None:
        try:
            async with self._kept(due):
                outcome = await self._attempt(due)
            await self._record(due, outcome)
        except (DatabaseUnavailable, LeaseLost) as error:
            logger.warning("webhook %s is sent again: %s", due.id, error or "another process has it")
        except Exception:
            logger.exception("webhook %s is sent again after an internal error", due.id)
        finally:
            self._places.release()

    @asynccontextmanager
    async def _kept(self, due: DueWebhook) -> AsyncIterator[None]:
        """Extend the lease within the block."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(self._lease.total_seconds() / 4)
                with suppress(DatabaseUnavailable):
                    await webhooks.keep(self._database, due)

        async with background(keep()):
            yield

    async def _attempt(self, due: DueWebhook) -> Outcome:
        headers = self._signer.headers(due.id, due.body, datetime.now(UTC))
        try:
            answer = await post(self._urls, due.url, due.body.encode(), headers, self._answer_seconds)
        except (RefusedUrl, RequestFailed) as error:
            return Outcome(None, str(error))
        if 200 <= answer.status < 300:
            return Outcome(answer.status, None)
        redirected = "; redirects are not followed" if 300 <= answer.status < 400 else ""
        return Outcome(answer.status, f"the receiver answered {answer.status}{redirected}")

    async def _record(self, due: DueWebhook, outcome: Outcome) -> None:
        if outcome.error is None:
            await webhooks.delivered(self._database, due, outcome.status or 200)
            return
        pause = timedelta(seconds=self._pause(due.attempt))
        too_late = datetime.now(UTC) + pause > due.created_at + self._lifetime
        if outcome.status == GONE or too_late:
            logger.warning("webhook %s of job %s failed for good: %s", due.id, due.job_id, outcome.error)
            await webhooks.failed(self._database, due, outcome.status, outcome.error)
        else:
            logger.info("webhook %s of job %s failed: %s", due.id, due.job_id, outcome.error)
            await webhooks.retry(self._database, due, outcome.status, outcome.error, pause)

    def _pause(self, attempt: int) -> float:
        pause = self._pauses[min(attempt, len(self._pauses)) - 1]
        return pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret


@asynccontextmanager
async def delivering_webhooks(database: Database, urls: UrlClient, settings: ServiceSettings) -> AsyncIterator[None]:
    """Deliver webhooks within the block; do nothing without a secret to sign with. Raises BadSetting."""
    signer = Signer.of(settings)
    if signer is None:
        yield
        return
    lifetime = timedelta(hours=settings.webhook_hours)
    delivery = WebhookDelivery(database, urls, signer, lifetime=lifetime, lease=settings.lease)
    async with background(delivery.run()):
        yield
