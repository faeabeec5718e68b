"""A live session with networks that the test holds back: what is answered without them, and what is dropped."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest

from avatar.errors import AvatarError, InvalidField
from avatar.inference.bls_client import BlsInferenceClient
from avatar.options import DEFAULTS
from avatar.serving.live_access import SessionAccess
from avatar.serving.live_avatar import LiveAvatar
from avatar.serving.live_session import MAX_QUEUED, LiveSession, SessionAvatar
from avatar.serving.request import StreamRequest
from avatar.settings import LiveSettings
from avatar.tracing import stages

SECONDS = 20.0
PIECE = 640


class Networks:
    """Generates a mouth as bright as its number; waits for `released` first."""

    def __init__(self) -> None:
        self.calls = self.rows = 0
        self.released = asyncio.Event()
        self.released.set()

    async def wav2lip(self, faces: np.ndarray, windows: np.ndarray, generator: object) -> np.ndarray:
        self.calls += 1
        self.rows += len(faces)
        await self.released.wait()
        return np.full((len(windows), 96, 96, 3), 7, np.uint8)


class Request:
    """What the session uses of a `StreamRequest`."""

    def __init__(self, sent: list[tuple[str, dict[str, Any]]], name: str, **inputs: Any) -> None:
        self.id, self.sequence = name, 1
        self.is_start, self.is_end = inputs.pop("start", False), inputs.pop("end", False)
        self.inputs = {
            key: value if isinstance(value, (np.ndarray, str)) else number(value) for key, value in inputs.items()
        }
        self._sent = sent
        self.begin_stage = stages()

    def check(self) -> None:
        pass

    def array(self, name: str) -> np.ndarray | None:
        value = self.inputs.get(name)
        return None if isinstance(value, str) else value

    def texts(self) -> dict[str, str]:
        return {name: value for name, value in self.inputs.items() if isinstance(value, str)}

    async def send(self, **outputs: Any) -> None:
        await asyncio.sleep(0)
        self._sent.append((self.id, outputs))

    finish = send


def number(value: int) -> np.ndarray:
    return np.array([value], np.int32)


class Caller:
    """Sends requests to one session, and keeps what was sent back, in its order."""

    def __init__(self, images: int = 1, **settings: Any) -> None:
        self.networks, self.sent = Networks(), list[tuple[str, dict[str, Any]]]()
        self.late: list[float] = []
        self.session = LiveSession(
            "test",
            SessionAccess(required=False),
            cast(BlsInferenceClient, self.networks),
            LiveSettings(**settings),
            lambda session: None,
            self.late.append,
        )
        pictures = [np.full((120, 120, 3), n, np.uint8) for n in range(images)]
        boxes = [np.array([0, 0, 96, 96], np.int32)] * images
        crops = np.zeros((images, 96, 96, 3), np.uint8)
        self.avatar = LiveAvatar(pictures, list(boxes), crops, Fraction(25), DEFAULTS, ())

    async def start(self, **inputs: Any) -> None:
        async def prepare(request: StreamRequest, session: LiveSession) -> SessionAvatar:
            return SessionAvatar(self.avatar, "kept")

        request = Request(self.sent, "start", start=True, **inputs)
        await self.session.push(cast(StreamRequest, request), prepare)

    def push(self, name: str, **inputs: Any) -> asyncio.Task[None]:
        return asyncio.create_task(self.session.push(cast(StreamRequest, Request(self.sent, name, **inputs))))

    async def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end
            await asyncio.sleep(0.005)

    def values(self, output: str, name: str = "") -> list[Any]:
        return [outputs[output] for by, outputs in self.sent if output in outputs and name in ("", by)]

    def messages(self, output: str) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.values(output)]

    def indexes(self, name: str = "") -> list[int]:
        return self.values("index", name)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on an event loop of its own."""
    asyncio.run(asyncio.wait_for(test(), SECONDS))


def speech(pieces: int, level: int = 1000) -> np.ndarray:
    return np.full(pieces * PIECE, level, np.int16)


def test_clear_is_answered_while_the_networks_do_not_answer() -> None:
    async def test() -> None:
        caller = Caller()
        await caller.start(echo="true")
        first = caller.push("first", pcm=speech(25))
        await caller.until(lambda: len(caller.indexes()) == 20)
        caller.networks.released.clear()
        held = caller.push("held", pcm=speech(25))
        queued = [caller.push(f"queued {n}", pcm=speech(5), segment_end=1) for n in range(3)]
        await caller.until(lambda: caller.networks.calls > 3)
        cleared = caller.push("clear", clear=-1, pcm=speech(25, level=-2000), segment_end=1)
        await caller.until(lambda: bool(caller.values("cleared")))
        assert not caller.networks.released.is_set()
        await asyncio.gather(first, held, *queued)  # all are completed
        assert not cleared.done()
        # 25 pieces and 25 and 15 were sent; 20 frames
        assert caller.messages("cleared") == [{"last": 19, "next": 20, "dropped": pytest.approx((65 - 20) / 25)}]
        caller.networks.released.set()
        await cleared
        assert caller.indexes() == list(range(len(caller.indexes())))
        for _, outputs in caller.sent[[by for by, _ in caller.sent].index("clear") :]:
            assert "sound" not in outputs or set(outputs["sound"]) <= {-2000, 0}
        (segment,) = caller.messages("segment")
        assert (segment["first"], segment["duration"]) == (20, 1.0)
        await caller.push("end", end=True)
        assert caller.messages("summary")[0] == {
            "frames": segment["last"] + 1,
            "duration": 90 / 25,
            "without_face": 0,
            "segments": 2,
            "dropped": pytest.approx(45 / 25),
        }

    run(test)


def test_a_frame_counts_as_sent_from_the_moment_that_its_caller_can_have_it() -> None:
    async def test() -> None:
        caller, got, resumed = Caller(), asyncio.Event(), asyncio.Event()

        class Delivered(Request):
            async def send(self, **outputs: Any) -> None:
                await super().send(**outputs)
                got.set()
                await resumed.wait()  # the worker hears of it later than the caller

        await caller.start()
        rest = asyncio.create_task(caller.session.push(cast(StreamRequest, Delivered(caller.sent, "rest", rest=-1))))
        await got.wait()
        cleared = caller.push("clear", clear=0, received=0)
        await asyncio.sleep(0)
        assert caller.session.output.received == 1
        resumed.set()
        await asyncio.gather(rest, cleared)
        assert caller.messages("cleared") == [{"last": 0, "next": 1, "dropped": 0}]
        caller.session.close()

    run(test)


def test_a_full_queue_can_be_cleared() -> None:
    async def test() -> None:
        caller = Caller()
        await caller.start()
        caller.networks.released.clear()
        caller.push("first", pcm=speech(25))
        await caller.until(lambda: caller.networks.calls == 1)
        waiting = [caller.push(f"speech {n}", pcm=speech(1)) for n in range(MAX_QUEUED)]
        await asyncio.sleep(0)
        cleared = caller.push("clear", clear=-1)
        await asyncio.gather(*waiting, cleared)
        assert caller.messages("cleared") == [{"last": -1, "next": 0, "dropped": pytest.approx(1 + MAX_QUEUED / 25)}]
        caller.session.close()

    run(test)


def test_every_clear_of_several_is_answered_in_order() -> None:
    async def test() -> None:
        caller = Caller()
        await caller.start()
        caller.networks.released.clear()
        waiting = [caller.push(f"speech {n}", pcm=speech(25)) for n in range(3)]
        await caller.until(lambda: caller.networks.calls == 1)
        clears = [caller.push(f"clear {n}", clear=-1, pcm=speech(10)) for n in range(4)]
        await caller.until(lambda: len(caller.values("cleared")) == 4)
        caller.networks.released.set()
        await asyncio.gather(*waiting, *clears)
        assert [by for by, outputs in caller.sent if "cleared" in outputs] == [f"clear {n}" for n in range(4)]
        assert sum(each["dropped"] for each in caller.messages("cleared")) == pytest.approx(3 + 3 * 0.4)
        assert set(caller.indexes()) == set(caller.indexes("clear 3"))  # the speech of the last one remains
        caller.session.close()

    run(test)


def test_a_clear_during_the_preparation_drops_speech_and_is_answered_after_it() -> None:
    async def test() -> None:
        caller, prepared = Caller(), asyncio.Event()

        async def prepare(request: StreamRequest, session: LiveSession) -> SessionAvatar:
            await prepared.wait()
            return SessionAvatar(caller.avatar, "kept")

        request = cast(StreamRequest, Request(caller.sent, "start", start=True, pcm=speech(25)))
        start = asyncio.create_task(caller.session.push(request, prepare))
        await asyncio.sleep(0)
        clear = caller.push("clear", clear=-1)
        await asyncio.sleep(0.01)
        prepared.set()
        await asyncio.gather(start, clear)
        assert [next(iter(outputs)) for _, outputs in caller.sent] == ["session", "cleared"]
        assert caller.messages("cleared") == [{"last": -1, "next": 0, "dropped": 1.0}]
        caller.session.close()

    run(test)


def test_a_rest_ends_with_the_next_valid_request_and_not_with_an_invalid_one() -> None:
    async def test() -> None:
        caller = Caller()
        await caller.start()
        rest = caller.push("rest", rest=-1)
        await caller.until(lambda: len(caller.indexes()) > 3)
        for wrong in ({"pcm": speech(1)[:10]}, {"rest": 0}, {"segment_end": 2}, {"clear": -2}, {"clear": 10_000}):
            with pytest.raises(InvalidField, match=next(iter(wrong))):
                await caller.push("wrong", **wrong)
        await caller.push("read", received=2)  # acknowledges
        assert caller.session.output.received == 3
        before = len(caller.indexes())
        await caller.until(lambda: len(caller.indexes()) > before + 2)
        assert not rest.done()
        await caller.push("speech", pcm=speech(10))
        assert rest.done()
        assert caller.indexes() == list(range(len(caller.indexes())))
        assert caller.networks.rows == 1 + len(caller.indexes("speech"))  # one mouth for the whole rest
        caller.session.close()

    run(test)


def test_rests_are_sent_in_real_time_and_wait_for_speech_that_was_sent_ahead() -> None:
    async def test() -> None:
        caller = Caller()
        start = time.monotonic()
        await caller.start()
        caller.push("speech", pcm=speech(25))
        rest = caller.push("rest", rest=-1)
        await caller.until(lambda: bool(caller.values("segment")))
        (segment,) = caller.messages("segment")
        await caller.until(lambda: caller.indexes()[-1] > segment["last"] + 5)
        assert segment["last"] > 25
        assert time.monotonic() - start > caller.indexes()[-1] / 25 - 0.05
        rest.cancel()
        caller.session.close()

    run(test)


def test_rests_of_a_number_come_at_once_and_move_a_video() -> None:
    async def test() -> None:
        caller = Caller(images=3)
        await caller.start(format="bgr")
        await caller.push("rest", rest=700)
        assert caller.indexes() == list(range(700))
        assert [int(frame[119, 119, 0]) for frame in caller.values("frame")[:7]] == [0, 1, 2, 0, 1, 2, 0]
        assert caller.networks.rows == 3
        assert caller.session.output.frames == 700  # counted like those of speech, if they are not read
        assert caller.session.output.unread == sum(frame.nbytes + 16 for frame in caller.values("frame"))
        with pytest.raises(InvalidField, match="rest: 1 to 750 frames"):
            await caller.push("more", rest=751)
        with pytest.raises(InvalidField, match="rest: no request follows"):
            await caller.push("last", rest=-1, end=True)
        await caller.push("end", rest=2, end=True)
        assert caller.messages("summary")[0]["frames"] == 702
        assert caller.messages("segment") == []

    run(test)


def test_the_sound_of_a_frame_counts_as_output_too() -> None:
    async def test() -> None:
        caller = Caller()
        await caller.start(sample_rate=48_000, echo="true", format="bgr")
        await caller.push("rest", rest=10)
        frames, sounds = caller.values("frame"), caller.values("sound")
        assert caller.session.output.unread == sum(each.nbytes for each in (*frames, *sounds)) + 10 * 16
        caller.session.close()

    run(test)


def test_frames_at_rest_are_sent_before_a_player_shows_them() -> None:
    async def test() -> None:
        caller = Caller()
        await caller.start()
        caller.push("rest", rest=-1)
        await caller.until(lambda: len(caller.late) > 10)
        caller.session.close()
        assert min(caller.late) < -0.1  # by `latency`, on a machine that is not busy

    run(test)


def test_a_session_that_is_closed_answers_the_request_that_rests() -> None:
    async def test() -> None:
        caller = Caller()
        await caller.start()
        rest = caller.push("rest", rest=-1)
        await caller.until(lambda: bool(caller.indexes()))
        caller.session.close(AvatarError("stopped"))
        with pytest.raises(AvatarError, match="stopped"):
            await rest

    run(test)


def test_a_network_that_fails_ends_the_request_with_its_error() -> None:
    async def test() -> None:
        caller = Caller()
        await caller.start()

        async def fail(*_: object) -> np.ndarray:
            raise AvatarError("wav2lip failed")

        caller.networks.wav2lip = fail  # type: ignore[assignment,method-assign]
        with pytest.raises(AvatarError, match="wav2lip failed"):
            await caller.push("speech", pcm=speech(25))
        caller.session.close()

    run(test)


def test_the_limit_of_a_speech_counts_per_segment() -> None:
    async def test() -> None:
        caller = Caller(max_speech_seconds=1)
        await caller.start()
        for _ in range(3):
            await caller.push("segment", pcm=speech(20), segment_end=1)
            await caller.push("dropped", pcm=speech(20))
            await caller.push("clear", clear=-1)
        await caller.push("speech", pcm=speech(20))
        with pytest.raises(InvalidField, match="audio: "):
            await caller.push("more", pcm=speech(20))
        caller.session.close()

    run(test)
