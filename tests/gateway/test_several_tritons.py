"""What the gateway says of several Tritons: readiness, 503 with Retry-After, and metrics by server."""

import asyncio
from contextlib import AsyncExitStack

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from avatar.inference.grpc_client import GrpcInferenceClient
from tests.support import fake_triton
from tests.support.gateway_fakes import Serve, form

SECONDS = 20.0  # after which something that has to happen has not happened


async def metric(client: httpx.AsyncClient, name: str) -> dict[str, float]:
    """Return the samples of a metric by server."""
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {sample.labels["server"]: sample.value for sample in samples}


async def healthy(client: httpx.AsyncClient, expected: dict[str, float]) -> None:
    """Return when the gateway sees its servers so."""
    async with asyncio.timeout(SECONDS):
        while await metric(client, "avatar_triton_healthy") != expected:  # noqa: ASYNC110 - seen by polling only
            await asyncio.sleep(0.05)


async def test_readiness_forms_and_metrics_while_one_server_after_the_other_is_lost(serve: Serve) -> None:
    async with AsyncExitStack() as last, AsyncExitStack() as first, AsyncExitStack() as second:
        one = await first.enter_async_context(fake_triton.serve(fake_triton.FakeTriton()))
        other = await second.enter_async_context(fake_triton.serve(fake_triton.FakeTriton()))
        models = GrpcInferenceClient(f"{one},{other}", shared_memory=False)
        last.push_async_callback(models.close)
        async with serve(models) as client:
            assert await metric(client, "avatar_triton_healthy") == {}
            assert (await client.get("/health/ready")).status_code == 200
            await healthy(client, {one: 1, other: 1})
            ready = (await client.get("/health/ready")).json()
            assert ready["triton"] == [{"server": one, "healthy": True}, {"server": other, "healthy": True}]
            for _ in range(4):
                await models.segment(np.zeros((8, 8, 3), np.uint8))
            assert await metric(client, "avatar_triton_calls_total") == {one: 2, other: 2}

            await second.aclose()
            await models.segment(np.zeros((8, 8, 3), np.uint8))
            await models.segment(np.zeros((8, 8, 3), np.uint8))
            assert (await client.get("/health/ready")).status_code == 200
            await healthy(client, {one: 1, other: 0})
            assert (await client.post("/", files=form())).status_code == 200
            assert await metric(client, "avatar_triton_calls_in_flight") == {one: 0, other: 0}

            await first.aclose()
            await healthy(client, {one: 0, other: 0})
            for answer in (await client.get("/health/ready"), await client.post("/", files=form())):
                assert answer.status_code == 503
                assert int(answer.headers["Retry-After"]) > 0
                assert "127.0.0.1" not in answer.json()["detail"]


async def test_one_server_is_unhealthy_while_it_does_not_answer(serve: Serve) -> None:
    server = fake_triton.FakeTriton()
    async with fake_triton.serve(server) as address:
        models = GrpcInferenceClient(address, shared_memory=False)
        async with serve(models) as client:
            for up, status in ((True, 200), (False, 503), (True, 200)):
                server.up = up
                assert (await client.get("/health/ready")).status_code == status
                assert await metric(client, "avatar_triton_healthy") == {address: up}
        await models.close()


async def test_one_server_is_not_listed(serve: Serve) -> None:
    async with fake_triton.serve(fake_triton.FakeTriton()) as address:
        models = GrpcInferenceClient(address, shared_memory=False)
        async with serve(models) as client:
            assert "triton" not in (await client.get("/health/ready")).json()
            await models.segment(np.zeros((8, 8, 3), np.uint8))
            assert await metric(client, "avatar_triton_calls_total") == {address: 1}
            assert await metric(client, "avatar_triton_failures_total") == {address: 0}
        await models.close()
