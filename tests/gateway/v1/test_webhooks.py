"""From a job that is submitted over HTTP to the signed webhook that its caller receives."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import standardwebhooks

from tests.gateway.v1.conftest import ServeJobs, ended
from tests.support.gateway_fakes import form
from tests.support.webhook_receiver import becomes, receiving

SECRET = "whsec_" + base64.b64encode(b"0" * 32).decode()
ALLOWED: dict[str, Any] = {
    "webhook_secrets": SECRET,
    "url_allowed_hosts": ("127.0.0.1:*",),
    "url_allow_http": True,
    "workers": 1,
}


async def test_the_caller_of_a_job_is_called_when_it_starts_and_ends(serve_jobs: ServeJobs) -> None:
    async with serve_jobs(**ALLOWED) as client, receiving() as receiver:
        answer = await client.post("/v1/jobs", files=form(webhook=receiver.url))
        assert answer.status_code == 202
        path = answer.headers["location"]
        job = await ended(client, path)
        messages = await receiver.wait(2)

        async def delivered() -> bool:
            webhooks = (await client.get(path)).json()["webhooks"]
            return [each["state"] for each in webhooks] == ["delivered", "delivered"]

        await becomes(delivered)
        shown = (await client.get(path)).json()["webhooks"]
    received = [standardwebhooks.Webhook(SECRET).verify(each.body, each.headers) for each in messages]
    by_type = {each["type"]: each["data"] for each in received}
    assert by_type.keys() == {"job.started", "job.succeeded"}
    assert by_type["job.succeeded"]["result"] == job["result"]
    assert {each.headers["webhook-id"] for each in messages} == {each["id"] for each in shown}


async def test_the_result_of_a_failed_job_is_told_too(serve_jobs: ServeJobs, render: Any) -> None:
    render.error = ValueError("a defect")
    async with serve_jobs(**ALLOWED, job_attempts=1) as client, receiving() as receiver:
        files = form(webhook=receiver.url, webhook_events="job.failed")
        await client.post("/v1/jobs", files=files)
        (message,) = await receiver.wait(1)
    assert json.loads(message.body)["data"]["error"]["code"]


@pytest.mark.parametrize("settings", [{}, {"webhook_secrets": SECRET}])
async def test_a_webhook_needs_a_secret_and_a_public_address(
    serve_jobs: ServeJobs, settings: dict[str, Any], store: Path
) -> None:
    async with serve_jobs(**settings) as client:
        answer: httpx.Response = await client.post("/v1/jobs", files=form(webhook="https://127.0.0.1/hook"))
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("webhook: ")
