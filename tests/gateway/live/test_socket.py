"""A session over the WebSocket, from its first message to its end."""

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from gateway.live.conversation import Conversation
from tests.gateway.live.conftest import Talk, close_slowly
from tests.support.fake_live import INFO, FakeLive
from tests.support.gateway_fakes import eventually
from tests.support.live_callers import Picture, calling

SPEECH = np.arange(1, 1601, dtype=np.int16)  # 0.1 s at 16 kHz
RATE = 16_000


async def test_speech_comes_back_as_frames_with_its_own_sound(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    async with calling(gateway.url) as caller:
        session = await caller.start(echo=True, rest=False)
        assert session["fps"] == "25"
        assert session["avatar"] == INFO["avatar"]
        assert not {"token", "sequence_id"} & session.keys()
        await caller.speak(SPEECH)
        await caller.send("end")
        assert await caller.close_code() == (1000, "")
    assert [(each.index, each.sound_time) for each in caller.pictures] == [(0, 0.0), (1, 0.04), (2, 0.08)]
    assert [each.jpeg for each in caller.pictures] == [b"0", b"1", b"2"]
    assert np.concatenate([each.sound for each in caller.pictures])[: len(SPEECH)].tolist() == SPEECH.tolist()
    assert [mark["type"] for mark in caller.marks] == ["session", "segment", "summary"]
    assert models.starts[0]["face_file"].tobytes() == b"a face"
    assert models.ended == 1


async def test_a_caller_may_start_the_next_session_when_it_has_the_summary(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_slowly(monkeypatch, Conversation)
    gateway = await talk(live_sockets=1)
    async with calling(gateway.url) as caller:
        await caller.start()
        await caller.send("end")
        await caller.mark("summary")
        async with calling(gateway.url) as again:
            assert (await again.start())["type"] == "session"


async def test_without_echo_frames_have_no_sound(talk: Talk) -> None:
    gateway = await talk()
    async with calling(gateway.url) as caller:
        await caller.start(rest=False)
        await caller.speak(SPEECH)
        picture = await caller.picture()
        assert picture.sound.size == 0
        assert picture.sound_time == -1


async def test_the_face_rests_until_speech_comes_and_after_each_segment(talk: Talk) -> None:
    gateway = await talk()
    async with calling(gateway.url) as caller:
        await caller.start(echo=True)
        assert (await caller.picture()).sound_time == -1
        for number in range(2):
            await caller.speak(SPEECH)
            await caller.send("segment_end")
            assert (await caller.mark("segment"))["segment"] >= number
            while (await caller.picture()).sound_time != -1:
                pass
    times = [each.sound_time for each in caller.pictures if each.sound_time >= 0]
    assert times == [0.0, 0.04, 0.08, 0.1, 0.14, 0.18]
    assert [each.index for each in caller.pictures] == list(range(len(caller.pictures)))


async def test_a_pause_in_the_speech_ends_the_segment(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    async with calling(gateway.url) as caller:
        await caller.start(echo=True)
        await caller.speak(SPEECH)
        while (await caller.picture()).sound_time < 0.08:
            pass
        await caller.mark("segment")
        assert (await caller.picture()).sound_time == -1


async def test_speech_may_come_in_any_pieces(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    long = np.arange(RATE * 35, dtype=np.int64).astype(np.int16)  # in one message, which is more than 30 s
    async with calling(gateway.url) as caller:
        await caller.start(echo=True, rest=False, sample_rate=RATE)
        for start in range(0, 1280, 128):  # as an AudioWorklet sends it
            await caller.speak(long[start : start + 128])
        await caller.speak(long[1280:])
        await caller.send("end")
        await caller.close_code()
    pieces = [each["pcm"] for each in models.requests_seen if "pcm" in each and each["pcm"].size]
    assert all(320 <= len(piece) <= 30 * RATE for piece in pieces[:-1])
    sound = np.concatenate([each.sound for each in caller.pictures])
    assert sound[: len(long)].tolist() == long.tolist()


async def test_no_frame_of_dropped_speech_comes_after_cleared(talk: Talk) -> None:
    gateway = await talk()
    async with calling(gateway.url) as caller:
        await caller.start(echo=True)
        for number in range(10):
            await caller.speak(np.full(RATE * 3, 2 * number + 1, np.int16))
            while 2 * number + 1 not in (await caller.picture()).sound:
                pass
            shown = caller.pictures[-1].index
            await caller.send("clear", shown=shown)
            cleared = await caller.mark("cleared")
            count = len(caller.pictures)
            for _ in range(3):
                picture = await caller.picture()
                assert picture.index >= cleared["next"] > shown
                assert not picture.sound.any()
            assert [each.index for each in caller.pictures[count:]] == [
                cleared["next"] + n for n in range(len(caller.pictures) - count)
            ]


async def test_a_prepared_avatar_needs_no_face(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    async with calling(gateway.url) as caller:
        assert (await caller.start(avatar=INFO["avatar"]))["type"] == "session"
    assert models.starts[0]["avatar"] == INFO["avatar"]
    assert "face_file" not in models.starts[0]
    async with calling(gateway.url) as caller:
        error = await caller.start(avatar="another")
        assert (error["status"], error["code"]) == (404, "avatar_not_found")
        assert "send face_file" in error["detail"]
        assert (await caller.close_code())[0] == 1008


async def test_options_and_the_rate_go_to_the_model_as_texts(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    async with calling(gateway.url) as caller:
        options: dict[str, Any] = {"background": "White", "max_height": 480, "smooth": False, "model": "wav2lip_gan"}
        session = await caller.start(options=options, sample_rate=48_000)
        assert session["sample_rate"] == 48_000
    start = models.starts[0]
    assert start["sample_rate"].tolist() == [48_000]
    assert (start["background"], start["max_height"], start["smooth"]) == ("White", "480", "false")
    assert (start["format"], start["echo"]) == ("jpeg", "true")


async def test_a_face_may_come_in_pieces(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    face = bytes(range(256)) * 40_000  # 10 MB, more than one message may have
    async with calling(gateway.url) as caller:
        await caller.send("start", face_bytes=len(face))
        for start in range(0, len(face), 1 << 20):
            await caller.socket.send(face[start : start + (1 << 20)])
        assert (await caller.mark("session", "error"))["type"] == "session"
    assert models.starts[0]["face_file"].tobytes() == face


async def test_the_id_of_the_request_is_the_callers_own(talk: Talk) -> None:
    gateway = await talk()
    async with calling(gateway.url, additional_headers={"X-Request-ID": "order-4711"}) as caller:
        assert caller.socket.response is not None
        assert caller.socket.response.headers["X-Request-ID"] == "order-4711"
        assert (await caller.start())["request_id"] == "order-4711"


async def test_the_subprotocol_is_chosen_where_it_is_offered(talk: Talk) -> None:
    gateway = await talk()
    async with calling(gateway.url) as caller:
        assert caller.socket.subprotocol == "talking-avatar.live.v1"
    async with calling(gateway.url, subprotocols=None) as caller:
        assert caller.socket.subprotocol is None
        assert (await caller.start())["type"] == "session"


async def test_a_caller_that_disconnects_frees_its_place_at_the_model(talk: Talk, models: FakeLive) -> None:
    gateway = await talk(live_sockets=1)
    for _ in range(3):
        async with calling(gateway.url) as caller:
            assert (await caller.start())["type"] == "session"
            await caller.speak(SPEECH)
            await caller.picture()
            caller.socket.transport.abort()
        await eventually(lambda: not models.sessions)
        await eventually(lambda: gateway.service.live.running == 0)


async def test_several_callers_talk_at_the_same_time(talk: Talk) -> None:
    gateway = await talk()

    async def talks(mark: int) -> list[Picture]:
        async with calling(gateway.url) as caller:
            await caller.start(echo=True, rest=False)
            await caller.speak(np.full(RATE, mark, np.int16))
            await caller.send("end")
            await caller.close_code()
            return caller.pictures

    for mark, pictures in enumerate(await asyncio.gather(*(talks(mark) for mark in range(5)))):
        assert len(pictures) == 25
        assert all((each.sound == mark).all() for each in pictures)


async def test_sessions_leave_no_tasks(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()

    async def one() -> None:
        async with calling(gateway.url) as caller:
            await caller.start()
            await caller.speak(SPEECH)
            await caller.send("clear")
            await caller.mark("cleared")
        await eventually(lambda: gateway.service.live.running == 0 and not models.sessions)

    await one()
    await eventually(lambda: len(gateway.server.server_state.connections) == 0)
    before = len(asyncio.all_tasks())
    for _ in range(5):
        await one()
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


async def test_who_asks_without_an_upgrade_learns_what_to_do(talk: Talk) -> None:
    gateway = await talk()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{gateway.url}/v1/live")
    assert answer.status_code == 426
    assert answer.json()["code"] == "upgrade_required"
    assert "ws://" in answer.json()["detail"]


async def test_other_paths_have_no_websocket(talk: Talk) -> None:
    gateway = await talk()
    with pytest.raises(InvalidStatus) as rejected:
        async with calling(gateway.url + "/nothing"):
            pass
    assert rejected.value.response.status_code == 404
