"""Live sessions over gRPC to servers in this process: what is sent, what comes, and where a session goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np
import pytest

from avatar.errors import AvatarError, Busy, ClientError, FaceNotFound, InvalidField, ShuttingDown, Unavailable
from avatar.inference import live_stream
from avatar.inference.grpc_client import GrpcInferenceClient
from avatar.inference.live_failures import AvatarForgotten
from avatar.inference.live_stream import LiveFrame, LiveMark, LiveStream
from tests.support.fake_live import INFO, TOKEN, FakeLive
from tests.support.fake_triton import serve
from tests.support.fake_tritons import SECONDS, healthy
from tests.support.gateway_fakes import eventually

FACE = {"face_file": np.frombuffer(b"a face", np.uint8)}
SPEECH = np.arange(1600, dtype=np.int16)  # 0.1 s
FULL = "503 limit of 1 live sessions reached; try again later"


@asynccontextmanager
async def servers(
    count: int = 1, seconds: float = SECONDS
) -> AsyncIterator[tuple[list[FakeLive], GrpcInferenceClient]]:
    async with AsyncExitStack() as stack:
        fakes = [FakeLive() for _ in range(count)]
        addresses = [await stack.enter_async_context(serve(fake)) for fake in fakes]
        models = GrpcInferenceClient(",".join(addresses), seconds, shared_memory=False)
        stack.push_async_callback(models.close)
        if count > 1:
            await models.check_ready()
            await eventually(lambda: healthy(models) == set(addresses))
        yield fakes, models


async def read_until(stream: LiveStream, kind: str) -> tuple[list[LiveFrame], LiveMark]:
    frames: list[LiveFrame] = []
    async with asyncio.timeout(SECONDS):
        while (event := await stream.read()) is not None:
            if isinstance(event, LiveMark):
                if event.kind == kind:
                    return frames, event
            else:
                frames.append(event)
    raise AssertionError(f"no {kind}")


async def test_a_session_sends_speech_and_gets_frames_marks_and_its_end() -> None:
    async with servers() as ((server,), models):
        stream = await models.live(FACE)
        stream.send({"pcm": SPEECH}, received=-1)
        stream.send({"segment_end": np.array([1], np.int32)}, received=1)
        frames, mark = await read_until(stream, "segment")
        assert [(frame.index, frame.sound_time) for frame in frames] == [(0, 0.0), (1, 0.04), (2, 0.08)]
        assert b"".join(frame.sound for frame in frames)[: SPEECH.nbytes] == SPEECH.tobytes()
        assert mark.data == {"segment": 0, "first": 0, "last": 2}
        stream.send({"pcm": SPEECH[:0]}, received=2, end=True)
        _, summary = await read_until(stream, "summary")
        assert summary.data["frames"] == 3
        assert await stream.read() is None
        await stream.close()
        assert server.requests_seen[0]["face_file"].tobytes() == b"a face"
        assert [int(each["received"][0]) for each in server.requests_seen[1:]] == [-1, 1, 2]


async def test_the_secrets_of_a_session_stay_in_this_process() -> None:
    async with servers() as ((server,), models):
        stream = await models.live(FACE)
        assert stream.info == {key: value for key, value in INFO.items() if key not in ("token", "sequence_id")} | {
            "sample_rate": 16_000
        }
        stream.send({"pcm": SPEECH}, received=-1)
        await eventually(lambda: len(server.requests_seen) == 2)
        assert server.requests_seen[1]["token"] == TOKEN
        await stream.close()


async def test_a_session_that_is_closed_frees_its_place_at_once() -> None:
    async with servers() as ((server,), models):
        stream = await models.live(FACE)
        stream.send({"rest": np.array([-1], np.int32)}, received=-1)
        await stream.close()
        await stream.close()
        assert server.ended == 1
        assert not server.sessions
        assert await stream.read() is None


async def test_a_cancelled_wait_for_a_frame_does_not_end_the_session() -> None:
    async with servers() as (_, models):
        stream = await models.live(FACE)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.read(), 0.02)
        stream.send({"pcm": SPEECH}, received=-1)
        assert isinstance(await asyncio.wait_for(stream.read(), SECONDS), LiveFrame)
        await stream.close()


async def test_a_session_that_is_not_read_can_be_closed() -> None:
    async with servers() as ((server,), models):
        stream = await models.live(FACE)
        stream.send({"pcm": np.zeros(160_000, np.int16)}, received=-1)  # 250 frames
        await eventually(lambda: len(server.requests_seen) == 2)
        await stream.close()
        await eventually(lambda: not server.sessions)


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (FULL, Busy, "limit of 1 live sessions reached; try again later"),
        ("503 the service is being stopped", ShuttingDown, "the service is being stopped"),
        ("503 the stream was ended: 9 MiB", Unavailable, "the stream was ended: 9 MiB"),
        ("400 pads: four numbers expected", InvalidField, "pads: four numbers expected"),
        (f"400 {FaceNotFound()}", FaceNotFound, str(FaceNotFound())),
        ("404 avatar: unknown; send face_file", AvatarForgotten, "avatar: unknown; send face_file"),
        ("409 another session", ClientError, "another session"),
        ("500 internal error; see the log", AvatarError, "internal error; see the log"),
        ("Request for unknown model: 'live' is not found", Unavailable, "live cannot be reached"),
    ],
)
async def test_a_rejected_start_has_the_error_of_the_model(message: str, kind: type[Exception], text: str) -> None:
    async with servers() as ((server,), models):
        server.refusal = message
        with pytest.raises(kind) as caught:
            await models.live(FACE)
        assert type(caught.value) is kind
        assert str(caught.value) == text
        server.refusal = ""
        await (await models.live(FACE)).close()  # the server still gets sessions


async def test_a_session_goes_to_another_server_if_one_is_full() -> None:
    async with servers(2) as ((first, second), models):
        first.refusal = FULL
        streams = [await models.live(FACE) for _ in range(3)]
        assert len(second.sessions) == 3
        for stream in streams:
            await stream.close()
        second.refusal = FULL
        with pytest.raises(Busy):
            await models.live(FACE)


async def test_sessions_are_spread_over_the_servers() -> None:
    async with servers(2) as (fakes, models):
        streams = [await models.live(FACE) for _ in range(4)]
        assert [len(fake.sessions) for fake in fakes] == [2, 2]
        for stream in streams:
            await stream.close()


async def test_a_prepared_avatar_is_found_on_the_one_of_many_servers_that_has_it() -> None:
    async with servers(6) as (fakes, models):
        *others, having = fakes  # the first call asks it last, and so does each later one
        for each in others:
            each.forgotten = True
        for _ in range(3):
            stream = await models.live({"avatar": "prepared-1"})
            await stream.close()
        assert len(having.starts) == 3
        having.forgotten = True
        with pytest.raises(AvatarForgotten, match="send face_file"):
            await models.live({"avatar": "prepared-1"})


async def test_a_session_fails_with_its_server() -> None:
    async with AsyncExitStack() as stack:
        server = FakeLive()
        running = serve(server)
        models = GrpcInferenceClient(await running.__aenter__(), SECONDS, shared_memory=False)
        stack.push_async_callback(models.close)
        stream = await models.live(FACE)
        await running.__aexit__(None, None, None)
        with pytest.raises(Unavailable, match="lost with its Triton"):
            await asyncio.wait_for(stream.read(), SECONDS)
        assert await stream.read() is None
        await stream.close()


async def test_a_server_that_does_not_answer_the_start_is_unavailable() -> None:
    async with servers(seconds=0.3) as ((server,), models):
        server.is_mute = True
        with pytest.raises(Unavailable, match="did not answer in time"):
            await models.live(FACE)


async def test_closed_connections_end_their_sessions() -> None:
    async with servers() as (_, models):
        stream = await models.live(FACE)
        await models.close()
        with pytest.raises(Unavailable, match="lost"):
            await asyncio.wait_for(stream.read(), SECONDS)
        await stream.close()


async def test_requests_that_the_server_does_not_take_are_limited() -> None:
    async with servers() as (_, models):
        stream = await models.live(FACE)
        with pytest.raises(ClientError, match="send fewer"):
            for _ in range(live_stream.MAX_REQUESTS + 1):  # without a pause in which they could be sent
                stream.send({"clear": np.array([-1], np.int32)}, received=-1)
        await stream.close()
