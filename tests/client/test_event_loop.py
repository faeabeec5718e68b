"""Conversations over a session that does what a test says: order, interruption, pauses, and a server that is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from avatar_client import (
    AvatarClient,
    InvalidRequest,
    Unavailable,
    conversation,
)
from avatar_client.conversation import Conversation, ConversationFrame, ServerBack, ServerLost, SpeechEnd
from tests.client.fake_live_session import RATE, SIZE, FakeSession, Server
from tests.client.fake_server import FakeServer
from tests.support.relay import relay

SECONDS = 20.0  # generous, for what takes milliseconds


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(conversation, "FIRST_RETRY", 0.05)
    return Server()


@pytest.fixture
async def talk(server: Server) -> AsyncIterator[Conversation]:
    async with Conversation(server.connect, RATE) as running:
        await running.ready()
        yield running


def words(samples: int, start: int = 1) -> np.ndarray:
    """Return samples that are all different, and none of them silence."""
    return np.arange(start, start + samples, dtype=np.int32).astype(np.int16)


async def take_until(talk: Conversation, *kinds: type, limit: int = 10_000) -> list[Any]:
    """Return the events up to the first of one of the kinds."""
    events: list[Any] = []
    async with asyncio.timeout(SECONDS):
        while len(events) < limit:
            events.append(await anext(talk))
            if isinstance(events[-1], kinds):
                return events
    raise AssertionError(f"no {kinds} among {limit} events")


def sound_of(events: list[Any]) -> np.ndarray:
    sounds = [each.sound for each in events if isinstance(each, ConversationFrame) and each.sound is not None]
    return np.concatenate([np.zeros(0, np.int16), *sounds])


def assert_sound(events: list[Any], speech: np.ndarray) -> None:
    sound = sound_of(events)
    np.testing.assert_array_equal(sound[: len(speech)], speech)
    assert not sound[len(speech) :].any() and len(sound) < len(speech) + SIZE


async def test_all_speech_comes_out_with_its_frames_and_an_end(talk: Conversation) -> None:
    speech = words(20 * SIZE + 100)
    for part in np.array_split(speech, 77):
        await talk.say(part)
    talk.end_segment()
    events = await take_until(talk, SpeechEnd)
    assert_sound(events, speech)
    frames = [each for each in events if isinstance(each, ConversationFrame)]
    assert [each.index for each in frames] == sorted({each.index for each in frames})
    assert frames[-1].position == talk.position == len(speech)
    assert not talk.is_speaking


async def test_images_are_rgb(talk: Conversation) -> None:
    (frame,) = await take_until(talk, ConversationFrame)
    assert frame.image.tolist() == np.full((4, 6, 3), (10, 2, 1)).tolist()
    assert frame.sound is None and frame.image.flags.c_contiguous


async def test_segments_end_in_order_also_those_without_speech(talk: Conversation, server: Server) -> None:
    speech = words(3 * SIZE)
    talk.end_segment()
    await talk.say(speech)
    talk.end_segment()
    talk.end_segment()
    await talk.say(speech)
    talk.end_segment()
    kinds: list[str] = []
    while kinds.count("SpeechEnd") < 4:
        kinds += [type(each).__name__ for each in await take_until(talk, SpeechEnd) if not _is_rest(each)]
    frames = ["ConversationFrame"] * 3
    assert kinds == ["SpeechEnd", *frames, "SpeechEnd", "SpeechEnd", *frames, "SpeechEnd"]
    assert server.session.calls.count("end_segment") == 2


def _is_rest(event: Any) -> bool:
    return isinstance(event, ConversationFrame) and event.sound is None


async def test_no_more_than_a_second_is_sent_ahead_of_the_frames_that_are_taken(
    talk: Conversation, server: Server
) -> None:
    speech = words(RATE * 3)
    await talk.say(speech)
    await asyncio.sleep(0.2)
    assert server.session._sent == RATE
    talk.end_segment()
    assert_sound(await take_until(talk, SpeechEnd), speech)


async def test_more_than_a_minute_of_speech_waits_in_say(talk: Conversation) -> None:
    for _ in range(62):
        await talk.say(words(RATE))
    waiting = asyncio.create_task(talk.say(words(RATE)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    talk.interrupt()
    await asyncio.wait_for(waiting, SECONDS)
    assert not talk.is_speaking  # what waited was dropped with the rest


async def test_a_face_at_rest_has_few_frames_waiting_and_speech_comes_after_them(talk: Conversation) -> None:
    await asyncio.sleep(0.1)
    await talk.say(words(2 * SIZE))
    talk.end_segment()
    events = await take_until(talk, SpeechEnd)
    assert sum(map(_is_rest, events)) <= conversation.MAX_RESTING


async def test_nothing_of_the_dropped_words_comes_after_an_interruption(talk: Conversation, server: Server) -> None:
    await talk.say(words(30 * SIZE))
    events: list[Any] = [await anext(talk) for _ in range(8)]
    server.session.holds_cleared = True
    talk.interrupt()
    talk.interrupt()  # nothing is left that it could drop
    again = words(4 * SIZE, start=20_000)
    await talk.say(again)
    talk.end_segment()
    await asyncio.sleep(0.05)
    assert server.session.cleared == [events[-1].index]
    server.session.answer_clear()
    # the fake session had sent the frames of the new words before its answer, so they count as dropped words
    await talk.say(again)
    talk.end_segment()
    assert_sound(await take_until(talk, SpeechEnd), again)


async def test_an_interruption_at_rest_does_nothing(talk: Conversation, server: Server) -> None:
    talk.interrupt()
    assert "clear" not in server.session.calls


async def test_a_pause_flushes_the_words_and_is_no_end_of_the_segment(
    talk: Conversation, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "PAUSE", 0.1)
    speech = words(8 * SIZE)
    await talk.say(speech[: 5 * SIZE])
    frames: list[Any] = []
    async with asyncio.timeout(SECONDS):
        while len(sound_of(frames)) < 5 * SIZE:
            frames.append(await anext(talk))
    await talk.say(speech[5 * SIZE :])
    talk.end_segment()
    events = await take_until(talk, SpeechEnd)
    assert_sound(frames + events, speech)
    assert not any(isinstance(each, SpeechEnd) for each in frames)
    assert server.session.calls.count("end_segment") == 2


async def test_an_end_after_a_pause_is_reported(talk: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "PAUSE", 0.1)
    await talk.say(words(3 * SIZE))
    await asyncio.sleep(0.5)
    talk.end_segment()
    assert_sound(await take_until(talk, SpeechEnd), words(3 * SIZE))


async def test_the_voice_goes_on_without_the_server_and_a_new_session_takes_over(
    talk: Conversation, server: Server
) -> None:
    speech = words(60 * SIZE + 7)
    await talk.say(speech[: 40 * SIZE])
    events: list[Any] = [await anext(talk) for _ in range(12)]
    server.errors = [Unavailable("away"), Unavailable("away")]
    lost = server.session
    lost.fail(Unavailable("the live session is lost with its server, start a new one"))
    events += await take_until(talk, ServerLost)
    await talk.say(speech[40 * SIZE :])
    talk.end_segment()
    assert await asyncio.to_thread(server.has_second.wait, SECONDS)  # a second of the speech came out without a server
    events += await take_until(talk, SpeechEnd)
    assert_sound(events, speech)
    assert sum(isinstance(each, ServerBack) for each in events) == 1
    assert not server.errors and "end_segment" in server.session.calls
    await talk.say(speech[:SIZE])
    talk.end_segment()
    events = await take_until(talk, SpeechEnd)
    assert_sound(events, speech[:SIZE])
    assert events[-2].image[0, 0, 0] == 11  # of the second session


async def test_an_end_is_reported_though_the_server_is_lost_before_it(talk: Conversation, server: Server) -> None:
    await talk.say(words(3 * SIZE))
    server.errors = [InvalidRequest("no face was found")]
    server.session.fail(Unavailable("away"))
    talk.end_segment()
    events = await take_until(talk, SpeechEnd)
    assert_sound(events, words(3 * SIZE))
    events += await take_until(talk, ServerLost) if not _is_final(events) else []
    assert _is_final(events)
    await talk.say(words(3 * SIZE))
    talk.interrupt()
    await talk.say(words(2 * SIZE, 500))
    talk.end_segment()
    assert_sound(await take_until(talk, SpeechEnd), words(2 * SIZE, 500))


def _is_final(events: list[Any]) -> bool:
    return any(isinstance(each, ServerLost) and each.is_final for each in events)


async def test_a_rejection_of_speech_ends_its_session_only(talk: Conversation, server: Server) -> None:
    server.session.fail(InvalidRequest("audio: too long"))
    events = await take_until(talk, ServerBack)
    assert [each.is_final for each in events if isinstance(each, ServerLost)] == [False]


@pytest.mark.parametrize("samples", [np.zeros(960, np.float32), np.zeros((960, 2), np.int16)])
async def test_other_samples_are_rejected(talk: Conversation, samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"INT16 samples \[n\] expected, got (float32 \[960\]|int16 \[960, 2\])"):
        await talk.say(samples)


async def test_a_session_that_does_not_respond_is_given_up(
    talk: Conversation, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "STALLED", 0.3)
    events = await take_until(talk, ServerLost)
    assert "no response for 0.3 s" in str(events[-1].error)
    await take_until(talk, ServerBack)
    assert len(server.sessions) >= 2


async def test_a_session_that_does_not_start_raises_its_error(server: Server) -> None:
    server.errors = [InvalidRequest("face_file: no face was found")]
    talk = Conversation(server.connect, RATE)
    with pytest.raises(InvalidRequest, match="no face was found"):
        await talk.ready()
    talk.close()


def test_channels_become_their_mean() -> None:
    stereo = np.array([100, 200, -32768, -32768, 32767, 32767], np.int16)
    assert conversation.mono(stereo.tobytes(), 2).tolist() == [150, -32768, 32767]
    assert conversation.mono(memoryview(stereo.tobytes()), 1).tolist() == stereo.tolist()


async def test_a_closed_conversation_ends_the_iteration_and_takes_nothing_more(server: Server) -> None:
    talk = Conversation(server.connect, RATE)
    await talk.ready()
    async with asyncio.timeout(SECONDS):
        waiting = asyncio.create_task(_all(talk))
        await asyncio.sleep(0.05)
        talk.close()
        await waiting
    await talk.say(words(SIZE))
    talk.end_segment()
    talk.interrupt()
    talk.close()
    assert talk.position == 0


def test_the_session_of_a_conversation_that_was_left_open_ends_with_its_event_loop(server: Server) -> None:
    async def leave_open() -> None:
        await Conversation(server.connect, RATE).ready()

    asyncio.run(leave_open())
    server.session.rest()  # its next frames find the loop closed
    assert server.session.is_cancelled.wait(SECONDS)


async def test_a_session_that_starts_after_the_end_is_cancelled_at_once() -> None:
    session, may_start = FakeSession(), threading.Event()

    def connect() -> Any:
        assert may_start.wait(SECONDS)
        return session

    async with Conversation(connect, RATE):
        pass
    may_start.set()
    assert await asyncio.to_thread(session.is_cancelled.wait, SECONDS)


def test_a_client_waits_for_a_server_before_its_first_call() -> None:
    with FakeServer() as fake, AvatarClient(fake.address) as client:
        assert client.wait_for_server(SECONDS)


async def test_a_client_waits_for_a_server_that_comes_back() -> None:
    with FakeServer() as fake:
        async with relay(fake.address) as relayed:
            await relayed.cut()
            with AvatarClient(relayed.address) as client:
                assert not await asyncio.to_thread(client.is_ready)
                assert not await asyncio.to_thread(client.wait_for_server, 0.1)
                waiting = asyncio.create_task(asyncio.to_thread(client.wait_for_server, SECONDS))
                await relayed.restore()
                assert await waiting
                assert await asyncio.to_thread(client.is_ready)


async def _all(talk: Conversation) -> list[Any]:
    return [each async for each in talk]
