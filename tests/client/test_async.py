"""Rendering with `async for` has the same events, errors and cancellation as with `for`."""

from __future__ import annotations

import asyncio
import gc
import threading

import grpc
import pytest

from avatar_client import AvatarClient, Cancelled, Chunk, InvalidRequest, Progress, ServerError, Unavailable
from tests.client import fake_server as fake
from tests.client.fake_server import FakeServer
from tests.client.test_render import FACE, SPEECH, SUMMARY, script_of


async def is_set(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, fake.SECONDS)


async def test_the_events_equal_those_without_async(client: AvatarClient) -> None:
    events = [event async for event in client.render(FACE, SPEECH)]
    assert events[:2] == [Progress("queue", 0, None), Progress("encode", 0, 3)]
    assert b"".join(event.data for event in events if isinstance(event, Chunk)) == FACE + SPEECH
    assert events[-1] == SUMMARY


async def test_concurrent_videos_in_one_event_loop_do_not_mix(client: AvatarClient) -> None:
    async def render(n: int) -> bytes:
        rendering = client.render(FACE + bytes([n]), SPEECH)
        return b"".join([event.data async for event in rendering if isinstance(event, Chunk)])

    assert await asyncio.gather(*map(render, range(6))) == [FACE + bytes([n]) + SPEECH for n in range(6)]


async def test_leaving_the_block_cancels_the_call(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    async with client.render(FACE, SPEECH) as rendering:
        async for _ in rendering:
            break
    assert await is_set(server.cancelled)


async def test_garbage_collection_of_a_rendering_cancels_its_call(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    async for _ in client.render(FACE, SPEECH):
        break
    gc.collect()
    assert await is_set(server.cancelled)


async def test_cancelling_the_task_cancels_the_call(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar

    async def consume() -> None:
        async for _ in client.render(FACE, SPEECH):
            pass

    task = asyncio.create_task(consume())
    assert await is_set(server.started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await is_set(server.cancelled)


@pytest.mark.parametrize("from_thread", [False, True], ids=["in the loop", "from a thread"])
async def test_cancelling_a_rendering_raises_in_its_iteration(
    client: AvatarClient, server: FakeServer, from_thread: bool
) -> None:
    server.avatar = fake.waiting_avatar
    rendering = client.render(FACE, SPEECH)

    async def consume() -> None:
        async for _ in rendering:
            pass

    task = asyncio.create_task(consume())
    assert await is_set(server.started)
    if from_thread:
        await asyncio.to_thread(rendering.cancel)
    else:
        rendering.cancel()
    with pytest.raises(Cancelled):
        await task
    assert await is_set(server.cancelled)


async def test_closing_the_client_cancels_running_calls(server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    client = AvatarClient(server.address)
    rendering = client.render(FACE, SPEECH)
    await anext(rendering)
    client.close()
    with pytest.raises(Cancelled):
        async for _ in rendering:
            pass
    assert await is_set(server.cancelled)


async def test_a_request_that_was_not_delivered_is_sent_again(client: AvatarClient, server: FakeServer) -> None:
    server.failures.extend([grpc.StatusCode.UNAVAILABLE] * 2)
    events = [event async for event in client.render(FACE, SPEECH)]
    assert events[-1] == SUMMARY
    assert server.streams == 3


async def test_a_request_with_a_first_response_is_not_sent_again(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = script_of(fake.stream_response(video=b"half"), fake.error_response("500 gone"))
    with pytest.raises(ServerError, match="gone"):
        async for _ in client.render(FACE, SPEECH):
            pass
    server.avatar = script_of(fake.stream_response(video=b"half"))
    with pytest.raises(ServerError, match="before it was complete"):
        async for _ in client.render(FACE, SPEECH):
            pass
    assert server.streams == 2


async def test_an_error_of_the_model_raises_the_class_of_its_status(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = script_of(fake.error_response("400 face_file: not an image that can be read"))
    with pytest.raises(InvalidRequest) as caught:
        async for _ in client.render(FACE, SPEECH):
            pass
    assert (caught.value.code, caught.value.message) == (400, "face_file: not an image that can be read")


async def test_a_server_that_stops_responding_is_unavailable(server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    with AvatarClient(server.address, timeout=1.0) as client, pytest.raises(Unavailable, match="did not answer"):
        async for _ in client.render(FACE, SPEECH):
            pass
    assert await is_set(server.cancelled)


async def test_an_unreachable_server_is_unavailable() -> None:
    with AvatarClient("127.0.0.1:1", retries=0) as client, pytest.raises(Unavailable, match="cannot be reached"):
        async for _ in client.render(FACE, SPEECH):
            pass


async def test_a_rendering_is_iterated_either_with_or_without_async(client: AvatarClient) -> None:
    rendering = client.render(FACE, SPEECH)
    await anext(rendering)
    with pytest.raises(RuntimeError, match="not by both"):
        next(rendering)
    async with rendering:
        pass
    rendering = client.render(FACE, SPEECH)
    next(rendering)
    with pytest.raises(RuntimeError, match="not by both"):
        await anext(rendering)
    rendering.close()
