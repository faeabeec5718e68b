"""The parts of a live session that know nothing of sockets: order, speech, messages that wait, web sites."""

import asyncio
import random
from contextlib import suppress

import numpy as np
import pytest
from starlette.datastructures import Headers

from avatar.errors import InvalidField
from avatar.inference.live_stream import LiveEvent, LiveFrame, LiveMark
from gateway.live.messages import parse_message
from gateway.live.order import FrameOrder
from gateway.live.origins import is_allowed
from gateway.live.outbox import Outbox, SlowCaller
from gateway.live.speech import AHEAD_SECONDS, SpeechBuffer
from gateway.live_service import PreparedAvatars

DAMAGE = '{}[]":,0-9eE.+truefalsn\\u\0é '


def frame(index: int) -> LiveFrame:
    return LiveFrame(index, b"", b"", -1.0)


def segment(number: int, first: int, last: int) -> LiveMark:
    return LiveMark("segment", {"segment": number, "first": first, "last": last})


def cleared(following: int) -> LiveMark:
    return LiveMark("cleared", {"last": following - 1, "next": following})


def names(events: list[LiveEvent]) -> list[object]:
    return [each.index if isinstance(each, LiveFrame) else each.kind for each in events]


def passed(order: FrameOrder, *events: LiveEvent) -> list[object]:
    return names([ready for event in events for ready in order.add(event)])


def test_frames_are_passed_on_in_order_and_segments_after_their_frames_whatever_order_they_come_in() -> None:
    events: list[LiveEvent] = [*map(frame, range(6)), segment(0, 0, 2), segment(1, 3, 5)]
    for seed in range(50):
        random.Random(seed).shuffle(events)
        order = passed(FrameOrder(), *events)
        assert [each for each in order if each != "segment"] == [0, 1, 2, 3, 4, 5]
        assert order.index("segment") > order.index(2)
        assert order[-1] == "segment" or order.count("segment") == 2
    assert passed(FrameOrder(), segment(0, 0, 1), *map(frame, range(4)), segment(1, 2, 1)) == [
        0,
        1,
        "segment",
        2,
        3,
        "segment",
    ]


def test_nothing_is_passed_on_between_clear_and_its_answer() -> None:
    order = FrameOrder()
    assert passed(order, frame(0), frame(1)) == [0, 1]
    order.clear()
    assert passed(order, frame(2), frame(3)) == []
    assert passed(order, cleared(4)) == ["cleared"]
    assert passed(order, frame(3), frame(4)) == [4]


def test_frames_that_overtake_the_answer_to_clear_are_kept() -> None:
    order = FrameOrder()
    order.clear()
    assert passed(order, frame(5), frame(6), cleared(5)) == ["cleared", 5, 6]


def test_two_clears_wait_for_both_answers() -> None:
    order = FrameOrder()
    order.clear()
    order.clear()
    assert passed(order, frame(0), cleared(1), frame(1), cleared(2), frame(2)) == ["cleared", "cleared", 2]


def test_the_summary_comes_after_everything_else() -> None:
    order = FrameOrder()
    summary = LiveMark("summary", {"frames": 3})
    assert passed(order, frame(1), frame(2), segment(0, 1, 2), summary) == [1, 2, "segment", "summary"]


def test_damaged_messages_are_read_or_rejected_with_a_field() -> None:
    chosen = random.Random(1)
    valid = (
        '{"type": "start", "avatar": "a", "options": {"pads": "0,1,2,3", "fps": 25}, "sample_rate": 9000}',
        '{"type": "clear", "shown": 12}',
    )
    for number in range(3000):
        text = list(valid[number % 2])
        for _ in range(chosen.randint(1, 4)):
            place = chosen.randrange(len(text))
            new = chosen.choices(DAMAGE, k=chosen.randint(0, 4))
            text[place : place + chosen.randint(0, 3)] = new
        with suppress(InvalidField):
            parse_message("".join(text)).model_dump_json().encode()


def test_speech_is_collected_and_cut_to_what_the_model_accepts() -> None:
    buffer = SpeechBuffer(48_000)
    speech = np.arange(48_000 * 31, dtype=np.int64).astype(np.int16)
    assert list(buffer.add(speech[:959].tobytes())) == []
    pieces = [*buffer.add(speech[959:].tobytes()), buffer.take()]
    assert [len(each) for each in pieces] == [48_000 * 30, 48_000, 0]
    assert np.concatenate(pieces).tolist() == speech.tolist()
    with pytest.raises(InvalidField, match="even number of bytes"):
        buffer.add(b"abc")


def test_speech_may_be_ahead_of_its_frames_but_not_far() -> None:
    buffer = SpeechBuffer(8000)
    second = bytes(16_000)
    for _ in range(int(AHEAD_SECONDS)):
        list(buffer.add(second))
    with pytest.raises(InvalidField, match="ahead of its frames"):
        buffer.add(second)
    buffer.advance(10.0)
    list(buffer.add(second * 10))
    with pytest.raises(InvalidField):
        buffer.add(second)
    buffer.drop()
    assert len(list(buffer.add(second))) == 1


async def test_messages_wait_for_a_caller_that_is_slow_for_a_moment() -> None:
    outbox = Outbox(patience=20, max_bytes=10)
    await outbox.put(b"12345678", is_frame=True)
    waiting = asyncio.create_task(outbox.put(b"123", is_frame=True))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert await outbox.take() == b"12345678"
    await asyncio.wait_for(waiting, 20)
    await outbox.finish()
    assert [await outbox.take(), await outbox.take()] == [b"123", None]


async def test_a_message_that_has_waited_for_too_long_ends_the_session() -> None:
    outbox = Outbox(patience=0.0)
    await outbox.put(b"1")
    await asyncio.sleep(0.01)
    with pytest.raises(SlowCaller, match="not read"):
        await outbox.take()


async def test_dropped_frames_make_room_and_texts_stay() -> None:
    outbox = Outbox(patience=20, max_bytes=4)
    await outbox.put(b"1", is_frame=True)
    await outbox.put("t")
    await outbox.put(b"2", is_frame=True)
    await outbox.drop_frames()
    await asyncio.wait_for(outbox.put(b"345"), 20)
    assert [await outbox.take(), await outbox.take()] == ["t", b"345"]


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "passes"),
    [
        (None, "a:1", (), True),
        ("http://a:1", "a:1", (), True),
        ("https://A:1", "a:1", (), True),
        ("http://a:2", "a:1", (), False),
        ("null", "", (), False),
        ("https://b", "a", ("https://b",), True),
        ("https://b", "a", ("*",), True),
        ("https://b.evil", "a", ("https://b",), False),
    ],
)
def test_web_sites(origin: str | None, host: str, allowed: tuple[str, ...], passes: bool) -> None:
    headers = Headers({"host": host} | ({"origin": origin} if origin else {}))
    assert is_allowed(headers, allowed) is passes


def test_the_ids_of_prepared_faces_are_bounded() -> None:
    prepared = PreparedAvatars(most=2)
    for number in range(3):
        prepared.add((number,), str(number))
        prepared.find((0,))
    assert [prepared.find((number,)) for number in range(3)] == ["0", None, "2"]
    prepared.forget((0,))
    assert prepared.find((0,)) is None
