"""A whole video through `async for`: the same events, errors and cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading

import grpc
import pytest

from avatar_client import AvatarClient, Cancelled, Chunk, InvalidRequest, Progress, ServerError, Unavailable
from tests.client import fake_server as fake
from tests.client.fake_server import FakeServer
from tests.client.test_render import FACE, SPEECH, SUMMARY, breaks


async def seen(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, fake.SECONDS)


async def test_the_events_are_those_of_the_other_way(client: AvatarClient) -> None:
    events = [event async for event in client.render(FACE, SPEECH)]
    assert events[:2] == [Progress("queue", 0, None), Progress("encode", 0, 3)]
    assert b"".join(event.data for event in events if isinstance(event, Chunk)) == FACE + SPEECH
    assert events[-1] == SUMMARY


async def test_many_at_the_same_time_in_one_loop(client: AvatarClient) -> None:
    async def one(n: int) -> bytes:
        rendering = client.render(FACE + bytes([n]), SPEECH)
        return b"".join([event.data async for event in rendering if isinstance(event, Chunk)])

    assert await asyncio.gather(*map(one, range(6))) == [FACE + bytes([n]) + SPEECH for n in range(6)]


async def test_leaving_the_block_cancels_at_the_server(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    async with client.render(FACE, SPEECH) as rendering:
        async for _ in rendering:
            break
    assert await seen(server.cancelled)


async def test_letting_go_of_it_cancels_at_the_server(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    async for _ in client.render(FACE, SPEECH):
        break
    gc.collect()
    assert await seen(server.cancelled)


async def test_cancelling_the_task_cancels_at_the_server(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar

    async def watch() -> None:
        async for _ in client.render(FACE, SPEECH):
            pass

    task = asyncio.create_task(watch())
    assert await seen(server.begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await seen(server.cancelled)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in the loop", "from a thread"])
async def test_cancelling_it_raises_where_it_is_iterated(
    client: AvatarClient, server: FakeServer, elsewhere: bool
) -> None:
    server.avatar = fake.waiting_avatar
    rendering = client.render(FACE, SPEECH)

    async def watch() -> None:
        async for _ in rendering:
            pass

    task = asyncio.create_task(watch())
    assert await seen(server.begun)
    if elsewhere:
        await asyncio.to_thread(rendering.cancel)
    else:
        rendering.cancel()
    with pytest.raises(Cancelled):
        await task
    assert await seen(server.cancelled)


async def test_closing_the_client_cancels_what_is_under_way(server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    client = AvatarClient(server.address)
    rendering = client.render(FACE, SPEECH)
    await anext(rendering)
    client.close()
    with pytest.raises(Cancelled):
        async for _ in rendering:
            pass
    assert await seen(server.cancelled)


async def test_what_could_not_be_delivered_is_sent_again(client: AvatarClient, server: FakeServer) -> None:
    server.fail.extend([grpc.StatusCode.UNAVAILABLE] * 2)
    events = [event async for event in client.render(FACE, SPEECH)]
    assert events[-1] == SUMMARY
    assert server.streams == 3


async def test_not_when_something_had_come(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = breaks(fake.answer(video=b"half"), fake.problem("500 gone"))
    with pytest.raises(ServerError, match="gone"):
        async for _ in client.render(FACE, SPEECH):
            pass
    server.avatar = breaks(fake.answer(video=b"half"))
    with pytest.raises(ServerError, match="before it was complete"):
        async for _ in client.render(FACE, SPEECH):
            pass
    assert server.streams == 2


async def test_an_error_of_the_model_is_an_error_of_its_class(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = breaks(fake.problem("400 face_file: not an image that can be read"))
    with pytest.raises(InvalidRequest) as caught:
        async for _ in client.render(FACE, SPEECH):
            pass
    assert (caught.value.code, caught.value.message) == (400, "face_file: not an image that can be read")


async def test_a_server_that_falls_silent_is_given_up(server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    with AvatarClient(server.address, timeout=0.5) as client, pytest.raises(Unavailable, match="did not answer"):
        async for _ in client.render(FACE, SPEECH):
            pass
    assert await seen(server.cancelled)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with AvatarClient("127.0.0.1:1", retries=0) as client, pytest.raises(Unavailable, match="cannot be reached"):
        async for _ in client.render(FACE, SPEECH):
            pass


async def test_it_is_iterated_in_one_way_only(client: AvatarClient) -> None:
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
