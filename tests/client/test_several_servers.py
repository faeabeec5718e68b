"""Several servers: calls and streams use them in turn, and pass over those that fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import grpc
import numpy as np
import pytest

from avatar_client import AvatarClient, Chunk, Unavailable
from avatar_client._rotation import Rotation, Server, addresses_of
from tests.client import fake_server as fake
from tests.client.fake_server import FakeServer, Request

FRAME = np.zeros((1, 8, 8, 3), np.uint8)
LARGE = np.zeros((1, 200, 200, 3), np.uint8)


class Servers:
    """Running servers, each of which can be killed."""

    def __init__(self, count: int) -> None:
        self.all = [FakeServer() for _ in range(count)]
        self._stacks = [ExitStack() for _ in self.all]
        for stack, server in zip(self._stacks, self.all, strict=True):
            stack.enter_context(server)

    @property
    def addresses(self) -> list[str]:
        return [server.address for server in self.all]

    def kill(self, index: int) -> None:
        self._stacks[index].close()


@pytest.fixture
def servers() -> Iterator[Servers]:
    running = Servers(3)
    yield running
    for index in range(3):
        running.kill(index)


@pytest.fixture
def client(servers: Servers) -> Iterator[AvatarClient]:
    with AvatarClient(servers.addresses, timeout=30) as client:
        yield client


def index_of(servers: Servers, address: str) -> int:
    return servers.addresses.index(address)


def full_session(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    next(requests)
    yield fake.error_response("503 limit of 4 live sessions reached; try again later")


def used_up_session(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    next(requests)
    yield fake.error_response("429 too many sessions of this caller")


def test_calls_are_spread_evenly(client: AvatarClient, servers: Servers) -> None:
    for _ in range(12):
        client.detect_faces(FRAME)
    assert [len(server.calls) for server in servers.all] == [4, 4, 4]


def test_no_call_is_lost_when_a_server_is_and_it_is_not_asked_again_soon(
    client: AvatarClient, servers: Servers
) -> None:
    client.detect_faces(FRAME)
    servers.kill(1)
    for _ in range(12):
        client.detect_faces(FRAME)
    assert [len(server.calls) for server in servers.all][1] <= 1


def test_a_server_that_drains_is_passed_over(client: AvatarClient, servers: Servers) -> None:
    servers.all[0].failures.extend([grpc.StatusCode.UNAVAILABLE] * 100)
    for _ in range(6):
        client.detect_faces(FRAME)
    assert len(servers.all[0].failures) == 99
    assert len(servers.all[0].calls) == 0


def test_without_any_server_a_call_is_unavailable(client: AvatarClient, servers: Servers) -> None:
    for index in range(3):
        servers.kill(index)
    with pytest.raises(Unavailable, match="cannot be reached"):
        client.detect_faces(FRAME)


def test_shared_memory_is_used_with_each_server_that_sees_it(client: AvatarClient, servers: Servers) -> None:
    servers.all[2].accepts_shared_memory = False
    for _ in range(6):
        client.detect_faces(LARGE)
    assert [[bool(call.shared) for call in server.calls] for server in servers.all] == [
        [True] * 2,
        [True] * 2,
        [False] * 2,
    ]
    client.close()
    assert not any(server.regions for server in servers.all)


def test_videos_are_spread_and_one_that_has_not_begun_is_rendered_elsewhere(
    client: AvatarClient, servers: Servers
) -> None:
    for _ in range(3):
        assert client.render(b"face", b"speech").read() == b"facespeech"
    assert [server.streams for server in servers.all] == [1, 1, 1]
    servers.kill(0)
    assert client.render(b"face", b"speech").read() == b"facespeech"
    assert client.render(b"face", b"speech").read() == b"facespeech"


async def test_a_video_over_asyncio_is_rendered_elsewhere_too(client: AvatarClient, servers: Servers) -> None:
    servers.kill(0)
    for _ in range(3):
        async with client.render(b"face", b"speech") as stream:
            data = b"".join([event.data async for event in stream if isinstance(event, Chunk)])
        assert data == b"facespeech"


def test_live_sessions_are_spread_and_each_stays_with_its_server(client: AvatarClient, servers: Servers) -> None:
    sessions = [client.live(b"face") for _ in range(3)]
    assert [server.streams for server in servers.all] == [1, 1, 1]
    for session in sessions:
        for _ in range(3):
            session.send(np.zeros(640, np.int16))
        session.end()
        assert len(list(session.frames())) == 3
    assert [len(server.requests) for server in servers.all] == [5, 5, 5]
    assert [server.streams for server in servers.all] == [1, 1, 1]


def broken_session(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    yield fake.session_response(next(requests))
    context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


def reset_session(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    yield fake.session_response(next(requests))
    context.abort(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")  # as Envoy does


@pytest.mark.parametrize("script", [broken_session, reset_session])
def test_a_session_of_a_killed_server_says_so_and_the_next_one_goes_elsewhere(
    client: AvatarClient, servers: Servers, script: fake.Script
) -> None:
    servers.all[0].live = script
    session = client.live(b"face")
    with pytest.raises(Unavailable, match="the live session is lost with its server, start a new one"):
        list(session)
    with pytest.raises(Unavailable, match="start a new one"):
        session.send(np.zeros(640, np.int16))
    assert [server.streams for server in servers.all] == [1, 0, 0]
    for _ in range(4):
        client.live(b"face").cancel()
    assert [server.streams for server in servers.all] == [1, 2, 2]


@pytest.mark.parametrize(
    "words",
    [
        "in ensemble 'x', Server is stopping, scheduler for model has stopped accepting new inference requests",
        "Request for unknown model: 'live' has no available versions",
        "Server not ready",
    ],
)
def test_a_session_that_meets_a_server_that_stops_starts_elsewhere(
    client: AvatarClient, servers: Servers, words: str
) -> None:
    def stopping(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        next(requests)
        yield fake.error_response(words)

    servers.all[0].live = stopping
    client.live(b"face").cancel()
    assert servers.all[0].streams == 1
    assert sum(server.streams for server in servers.all) == 2


def test_a_session_is_started_elsewhere_if_its_server_is_away_or_full(client: AvatarClient, servers: Servers) -> None:
    servers.kill(0)
    servers.all[1].live = full_session
    with client.live(b"face") as session:
        assert session.info.width == 6
    assert servers.all[2].streams == 1
    servers.all[2].live = full_session
    with pytest.raises(Unavailable, match="limit of 4 live sessions"):
        client.live(b"face")


def test_a_caller_at_its_own_limit_does_not_try_elsewhere(client: AvatarClient, servers: Servers) -> None:
    for server in servers.all:
        server.live = used_up_session
    with pytest.raises(Unavailable, match="of this caller"):
        client.live(b"face")
    assert sum(server.streams for server in servers.all) == 1


def test_one_ready_server_is_enough(client: AvatarClient, servers: Servers) -> None:
    servers.kill(0)
    servers.all[1].ready = False
    assert client.is_ready("avatar")
    servers.all[2].ready = False
    assert not client.is_ready("avatar")


def test_the_addresses_of_a_name_are_followed(monkeypatch: pytest.MonkeyPatch, servers: Servers) -> None:
    monkeypatch.setattr("avatar_client._rotation.RESOLVE_SECONDS", 0.0)
    ports = {host: address.rpartition(":")[2] for host, address in zip("abc", servers.addresses, strict=True)}
    names = ["a", "b"]

    def lookup(host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("triton", 8001)
        if not names:
            raise OSError("no such name")
        return names

    def connect(address: str) -> Server:
        return Server.connect(f"127.0.0.1:{ports[address.partition(':')[0]]}", 30, 2, None)

    rotation = Rotation(["dns:///triton:8001"], connect, lookup)
    first = {rotation.next().connection.address for _ in range(4)}
    assert first == set(servers.addresses[:2])
    names[:] = ["b", "c"]
    second = {rotation.next().connection.address for _ in range(4)}
    assert second == set(servers.addresses[1:])
    names.clear()
    assert {rotation.next().connection.address for _ in range(4)} == second
    rotation.close()


@pytest.mark.parametrize("given", ["a:1,b:2", ["a:1", "b:2"], " a:1 , b:2", ("a:1", "b:2", "a:1")])
def test_addresses_are_a_text_or_a_sequence(given: str | Sequence[str]) -> None:
    assert addresses_of(given) == ["a:1", "b:2"]


@pytest.mark.parametrize("given", ["", "a:1,", [], ["http://a:1"], ["a:1", 2]])
def test_other_addresses_are_rejected(given: Any) -> None:
    with pytest.raises(ValueError, match="host:port"):
        AvatarClient(given)
