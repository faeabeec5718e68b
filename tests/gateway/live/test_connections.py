"""WebSockets count among the connections of the server, and what is no WebSocket leaves no connection."""

import asyncio
import logging
import socket

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.gateway.live.conftest import Talk
from tests.support.gateway_fakes import eventually
from tests.support.live_callers import calling

UPGRADE = (
    "GET /v1/live HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\n{more}\r\n"
)
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


async def read_metric(url: str, name: str) -> float:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{url}/metrics")).text
    return float(next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name)))


async def test_a_websocket_is_counted_as_a_connection_until_it_ends(talk: Talk) -> None:
    gateway = await talk()
    for _ in range(3):
        async with calling(gateway.url) as caller:
            await caller.start()
            assert await read_metric(gateway.url, "avatar_connections ") == 2  # and the one that asks
            assert await read_metric(gateway.url, 'avatar_live_callers{transport="websocket"}') == 1
        await eventually(lambda: gateway.service.live.running == 0)
        assert await read_metric(gateway.url, "avatar_connections ") == 1
    assert await read_metric(gateway.url, 'avatar_live_admitted_total{transport="websocket"}') == 3


async def test_messages_are_not_held_back_to_be_sent_together(talk: Talk) -> None:
    gateway = await talk()
    async with calling(gateway.url) as caller:
        await caller.start()
        for connection in gateway.server.server_state.connections:
            peer = connection.transport.get_extra_info("socket")
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_one_address_may_have_half_of_the_connections(talk: Talk) -> None:
    gateway = await talk(max_connections=4)
    async with calling(gateway.url), calling(gateway.url):
        with pytest.raises(InvalidStatus) as refused:
            async with calling(gateway.url):
                pass
        assert refused.value.response.status_code == 429
    await asyncio.sleep(0)
    async with calling(gateway.url) as caller:
        assert (await caller.start())["type"] == "session"


async def test_a_websocket_outlives_the_time_for_the_head_of_a_request(talk: Talk) -> None:
    gateway = await talk(header_timeout=0.5, keep_alive_timeout=1)
    async with calling(gateway.url) as caller:
        await caller.start()
        for _ in range(40):  # 1.6 s of the face at rest
            await caller.picture()


@pytest.mark.parametrize(
    "head",
    [
        UPGRADE.format(more=KEY + f"Cookie: {'x' * 20_000}\r\n"),
        UPGRADE.format(more=""),
        UPGRADE.format(more="Sec-WebSocket-Key: short\r\n"),
    ],
    ids=["a header that is too long", "no key", "a bad key"],
)
async def test_a_handshake_that_cannot_be_read_is_answered_and_closed(talk: Talk, head: str) -> None:
    gateway = await talk()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 400")
    writer.close()
    assert await read_metric(gateway.url, "avatar_connections ") == 1


async def test_a_finished_session_is_counted_with_its_errors(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.access")
    gateway = await talk()
    async with calling(gateway.url) as caller:
        await caller.send("end")
        await caller.close_code()
    await eventually(lambda: "GET /v1/live 101" in caplog.text)  # written with the count
    route = 'avatar_requests_total{method="GET",route="/v1/live",status="101"}'
    assert await read_metric(gateway.url, route) == 1
    assert await read_metric(gateway.url, 'avatar_errors_total{kind="InvalidField"}') == 1
