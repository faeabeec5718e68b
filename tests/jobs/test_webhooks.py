"""Webhooks: a real database, real receivers; signed, tried again, guarded, and sent again after a kill."""

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import standardwebhooks

from avatar.settings import BadSetting
from jobs.database import Database
from jobs.net.addresses import UrlRules
from jobs.net.client import UrlClient
from jobs.records import Delivery, Job, JobError, Submission, WebhookEvent
from jobs.repository import end, leases, read
from jobs.repository.submit import submit
from jobs.repository.totals import Total, queue_state
from jobs.webhook_delivery import PAUSES, WebhookDelivery
from jobs.webhooks import Signer
from tests.support.webhook_receiver import HANG, Receiver, becomes, receiving

SECRETS = ["whsec_" + base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2)]
HOUR = timedelta(hours=1)
RULES = UrlRules.of(["127.0.0.1:*"], allow_http=True)

Deliver = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as database:
        yield database


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def deliver(database: Database) -> Deliver:
    """`async with deliver(pauses=…)`: webhooks are delivered within the block."""

    @asynccontextmanager
    async def delivering(
        pauses: Sequence[float] = (0.05,), lifetime: timedelta = HOUR, lease: float = 20.0, answer_seconds: float = 10.0
    ) -> AsyncIterator[None]:
        async with UrlClient(RULES) as urls:
            delivery = WebhookDelivery(
                database,
                urls,
                Signer(SECRETS),
                lifetime=lifetime,
                lease=timedelta(seconds=lease),
                pauses=pauses,
                answer_seconds=answer_seconds,
                poll_seconds=0.1,
            )
            task = asyncio.create_task(delivery.run())
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    return delivering


async def canceled_job(database: Database, url: str, *events: WebhookEvent) -> Job:
    """Submit a job and cancel it: that is one webhook, if its events are wanted."""
    submission = Submission(uuid4(), {}, "0", webhook=url, webhook_events=events)
    await submit(database, submission, HOUR)
    job, _ = await end.cancel(database, "", submission.id)
    return job


async def failed_job(database: Database, url: str) -> Job:
    """Submit a job, start it and let it fail: that is two webhooks."""
    await submit(database, Submission(uuid4(), {}, "0", webhook=url), HOUR)
    lease = await leases.claim(database, uuid4(), HOUR, 3)
    assert lease is not None
    return await leases.fail(database, lease, JobError("invalid_field", "face_file: no image", 400))


async def settled(database: Database, job: UUID, state: str = "delivered", attempts: int = 1) -> Delivery:
    """Return the job's first webhook when it has this state and at least this number of attempts."""

    async def is_so() -> bool:
        first = (await read.deliveries(database, job))[0]
        attempted = first.last_status is not None or first.last_error is not None
        return first.state == state and first.attempts >= attempts and attempted

    await becomes(is_so)
    return (await read.deliveries(database, job))[0]


async def test_a_webhook_has_the_job_and_a_signature_for_each_secret(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    async with deliver():
        job = await canceled_job(database, receiver.url)
        delivery = await settled(database, job.id)
    (message,) = receiver.messages
    for secret in SECRETS:
        received = standardwebhooks.Webhook(secret).verify(message.body, message.headers)
        assert received["type"] == "job.canceled"
        assert received["data"]["id"] == str(job.id)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(base64.b64encode(b"3" * 32).decode()).verify(message.body, message.headers)
    assert message.headers["webhook-id"] == str(delivery.id)
    assert len(message.headers["webhook-signature"].split()) == 2
    assert message.headers["content-type"] == "application/json"
    assert (delivery.attempts, delivery.last_status, delivery.last_error) == (1, 204, None)
    assert await queue_rows(database) == 0


async def queue_rows(database: Database) -> int:
    (row,) = await database.fetch("SELECT count(*) AS rows FROM pgqueuer WHERE entrypoint = 'webhook'")
    return int(row["rows"])


async def test_only_the_wanted_events_are_sent(database: Database, receiver: Receiver, deliver: Deliver) -> None:
    async with deliver():
        unwanted = await canceled_job(database, receiver.url, WebhookEvent.SUCCEEDED)
        wanted = await canceled_job(database, receiver.url, WebhookEvent.CANCELED)
        await settled(database, wanted.id)
    assert [json.loads(each.body)["data"]["id"] for each in receiver.messages] == [str(wanted.id)]
    assert await read.deliveries(database, unwanted.id) == []


async def test_a_receiver_that_fails_gets_the_same_message_again(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    receiver.answers = [500, 404]
    async with deliver():
        job = await canceled_job(database, receiver.url)
        delivery = await settled(database, job.id)
    assert len({each.headers["webhook-id"] for each in receiver.messages}) == 1
    assert len({each.body for each in receiver.messages}) == 1
    assert (delivery.attempts, delivery.last_status) == (3, 204)
    assert (await queue_state(database)).totals[Total.WEBHOOK_FAILURES] == 2


async def test_a_receiver_that_hangs_is_tried_again(database: Database, receiver: Receiver, deliver: Deliver) -> None:
    receiver.answers = [HANG]
    async with deliver(answer_seconds=0.2):
        job = await canceled_job(database, receiver.url)
        assert (await settled(database, job.id)).attempts == 2


async def test_a_receiver_that_hangs_does_not_hold_up_another(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    receiver.answers = [HANG] * 5
    async with deliver(), receiving() as other:
        for _ in range(5):
            await canceled_job(database, receiver.url)
        await receiver.wait(5)
        job = await canceled_job(database, other.url)
        await settled(database, job.id)


async def test_a_redirect_is_not_followed(database: Database, receiver: Receiver, deliver: Deliver) -> None:
    async with receiving("127.0.0.2") as private:
        receiver.answers, receiver.location = [307], private.url
        async with deliver(pauses=(HOUR.total_seconds() / 4,)):
            job = await canceled_job(database, receiver.url)
            delivery = await settled(database, job.id, "pending")
        assert private.messages == []
    assert delivery.last_status == 307
    assert delivery.last_error == "the receiver answered 307; redirects are not followed"


@pytest.mark.parametrize("url", ["http://127.0.0.2:8000/", "http://169.254.169.254/latest", "http://[::1]/"])
async def test_a_private_address_is_refused_and_tried_again_later(
    database: Database, deliver: Deliver, url: str
) -> None:
    async with deliver(pauses=(HOUR.total_seconds() / 4,)):
        job = await canceled_job(database, url)
        delivery = await settled(database, job.id, "pending")
    assert delivery.last_status is None
    assert "address" in (delivery.last_error or "")


async def test_a_receiver_that_answers_410_gets_no_more_of_this_job(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    receiver.answers = [410, 410]
    job = await failed_job(database, receiver.url)
    async with deliver():

        async def both_failed() -> bool:
            return [each.state for each in await read.deliveries(database, job.id)] == ["failed", "failed"]

        # both may be sent at the same moment; then both are answered with 410
        await becomes(both_failed)
        late = await read.deliveries(database, job.id)
        receiver.answers.clear()  # if they were sent one after the other, one answer is left
        other = await canceled_job(database, receiver.url)
        await settled(database, other.id)
    assert {each.attempts for each in late} <= {0, 1}
    assert await queue_rows(database) == 0


async def test_a_webhook_after_a_410_is_not_sent(database: Database, receiver: Receiver, deliver: Deliver) -> None:
    receiver.answers = [410]
    async with deliver():
        submission = Submission(uuid4(), {}, "0", webhook=receiver.url)
        await submit(database, submission, HOUR)
        await leases.claim(database, uuid4(), HOUR, 3)
        await settled(database, submission.id, "failed")
        await end.cancel(database, "", submission.id)

        async def ended() -> bool:
            return all(each.state == "failed" for each in await read.deliveries(database, submission.id))

        await becomes(ended)
    assert len(receiver.messages) == 1
    first, second = await read.deliveries(database, submission.id)
    assert (first.last_status, second.last_status, second.attempts) == (410, None, 0)
    assert "410" in (second.last_error or "")


async def test_a_webhook_fails_for_good_when_its_time_is_over(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    receiver.answers = [500] * 100
    async with deliver(pauses=(0.1,), lifetime=timedelta(seconds=0.5)):
        job = await canceled_job(database, receiver.url)
        delivery = await settled(database, job.id, "failed")
    assert delivery.last_error == "the receiver answered 500"
    assert 1 <= delivery.attempts <= 6
    assert await queue_rows(database) == 0


async def test_the_webhooks_of_a_removed_job_are_dropped(database: Database, deliver: Deliver) -> None:
    job = await canceled_job(database, "http://127.0.0.1:9/")
    await end.remove(database, "", job.id)
    async with deliver():

        async def dropped() -> bool:
            return await queue_rows(database) == 0

        await becomes(dropped)


DELIVERER = """
import asyncio, sys
from datetime import timedelta
from jobs.database import Database
from jobs.net.addresses import UrlRules
from jobs.net.client import UrlClient
from jobs.webhook_delivery import WebhookDelivery
from jobs.webhooks import Signer

async def main(url, secret):
    rules = UrlRules.of(["127.0.0.1:*"], allow_http=True)
    hour = timedelta(hours=1)
    async with Database(url) as database, UrlClient(rules) as urls:
        await WebhookDelivery(database, urls, Signer([secret]), lifetime=hour, lease=timedelta(seconds=1)).run()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_deliverer_was_sending_is_sent_again_with_the_same_id(
    database: Database, database_url: str, receiver: Receiver, deliver: Deliver
) -> None:
    receiver.answers = [HANG]
    job = await canceled_job(database, receiver.url)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", DELIVERER, database_url, SECRETS[0])
    try:
        await receiver.wait(1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    async with deliver(lease=1.0):
        delivery = await settled(database, job.id, attempts=2)
    first, second = receiver.messages
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == str(delivery.id)
    assert first.body == second.body


async def test_a_slow_receiver_keeps_its_lease(database: Database, receiver: Receiver, deliver: Deliver) -> None:
    receiver.answers = [HANG]
    async with deliver(lease=1.0, answer_seconds=3.0):
        job = await canceled_job(database, receiver.url)
        await receiver.wait(1)
        await asyncio.sleep(2.0)
        assert len(receiver.messages) == 1
        assert (await settled(database, job.id)).attempts == 2


def test_the_pauses_grow_to_an_hour() -> None:
    assert PAUSES == (5, 30, 120, 600, 1800, 3600)


@pytest.mark.parametrize("secret", ["", "hidden", "whsec_!!!", "whsec_c2hvcnQ=", SECRETS[0][6:]])
def test_a_secret_of_another_form_is_rejected_without_showing_it(secret: str) -> None:
    with pytest.raises(BadSetting, match="AVATAR_WEBHOOK_SECRETS: secret 2 is not whsec_") as caught:
        Signer([SECRETS[0], secret])
    assert not secret or secret not in str(caught.value)


def test_the_time_of_an_attempt_is_signed() -> None:
    headers = Signer(SECRETS[:1]).headers(uuid4(), "{}", datetime.now(UTC) - timedelta(minutes=6))
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRETS[0]).verify("{}", headers)
