"""Conversations with the model `live`: segments, interruptions, rests, sound, prepared avatars and new sequences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from avatar.settings import LiveSettings
from lipsync.tensors import SEQUENCE_IDLE_SECONDS
from tests.support.live_streams import FRAMES_OF_SESSION, SPEECH, Stream, live_request, run_session, stub_processes
from tests.support.media import write_video
from tests.support.triton_server import Served
from tests.support.triton_streams import Responses

PCM = (SPEECH * 32767).astype(np.int16)
REST_FRAMES = 4
MIB, ROUNDS = 1 << 20, 10


class Caller:
    """One caller of one session. Each request has a name of its own."""

    def __init__(self, served: Served, sequence: int | str) -> None:
        self.stream, self.sequence, self.token = Stream(served), sequence, ""
        self._names = (f"{sequence}-{n}" for n in count())

    def start(self, **inputs: Any) -> Responses:
        responses = self.ask(start=True, **inputs)
        if responses.session:
            self.token = responses.session["token"]
            self.sequence = responses.session.get("sequence_id", self.sequence)
        return responses

    def send(self, **inputs: Any) -> str:
        """Send a request, and return its name; an int becomes INT32."""
        name = next(self._names)
        if self.token:
            inputs["token"] = self.token
        flags = {key: inputs.pop(key) for key in ("start", "end") if key in inputs}
        values: dict[str, Any] = {
            key: np.array([value], np.int32) if isinstance(value, int) else value for key, value in inputs.items()
        }
        self.stream.send(live_request(self.sequence, name, **flags, **values))
        return name

    def ask(self, **inputs: Any) -> Responses:
        """Send a request, and return all responses to it."""
        name = self.send(**inputs)
        self.stream.wait_until_finished(name)
        return self.stream.responses[name]

    def wait_for_frames(self, name: str, number: int) -> None:
        self.stream.wait_until(lambda: len(self.stream.responses[name].frames) >= number)

    def wait_for_all(self, last: int) -> None:
        """Wait for all frames up to an index: Triton may change the order of responses to different requests."""
        self.stream.wait_until(lambda: set(range(last + 1)) <= self.frames.keys())

    @property
    def frames(self) -> dict[int, dict[str, Any]]:
        """All frames of the session so far, in the order of their indexes."""
        found = {index: frame for each in list(self.stream.responses.values()) for index, frame in each.frames.items()}
        return dict(sorted(found.items()))

    def sound(self) -> np.ndarray:
        return np.concatenate([frame["sound"] for frame in self.frames.values()])


@pytest.fixture
def caller(served: Served, sequence: int) -> Iterator[Caller]:
    caller = Caller(served, sequence)
    yield caller
    if caller.token and caller.stream.code is None and not any(r.summary for r in caller.stream.responses.values()):
        caller.ask(end=True)
    caller.stream.cancel()


@pytest.fixture(scope="module")
def prepared(served: Served, face: bytes) -> str:
    """The id of the avatar of `face`."""
    session = run_session(served, face, 499_999, format="jpeg").session
    assert session
    return str(session["avatar"])


def test_each_segment_has_the_frames_of_a_session_of_its_own(
    served: Served, caller: Caller, face: bytes, sequence: int
) -> None:
    caller.start(face_file=face)
    sent = [caller.ask(pcm=PCM, segment_end=1) for _ in range(2)]
    sent.append(caller.ask(pcm=PCM, rest=REST_FRAMES))
    sent.append(caller.ask(end=True, pcm=PCM))
    alone = run_session(served, face, sequence + 100_000)
    assert [each.segments for each in sent[:2]] == [
        [{"segment": n, "first": n * FRAMES_OF_SESSION, "last": (n + 1) * FRAMES_OF_SESSION - 1, "duration": 0.3}]
        for n in range(2)
    ]
    starts = [0, FRAMES_OF_SESSION, 2 * FRAMES_OF_SESSION, 3 * FRAMES_OF_SESSION + REST_FRAMES]
    for start in starts:
        for n, frame in alone.frames.items():
            np.testing.assert_allclose(caller.frames[start + n]["frame"].astype(int), frame["frame"], atol=1)
    summary = sent[-1].summary
    assert summary
    assert (summary["frames"], summary["segments"], summary["dropped"]) == (starts[-1] + FRAMES_OF_SESSION, 4, 0)
    assert list(caller.frames) == list(range(summary["frames"]))


@pytest.mark.parametrize(("rate", "size"), [(16_000, 640), (48_000, 4097), (44_100, 882), (8000, 8000)])
def test_the_sounds_of_the_frames_are_the_speech_whatever_its_pieces_are(
    caller: Caller, prepared: str, rate: int, size: int
) -> None:
    speech = np.random.default_rng(rate).integers(-9000, 9000, rate // 2).astype(np.int16)
    started = caller.start(avatar=prepared, format="mouth", sample_rate=rate, echo="true").session
    assert started
    assert started["sample_rate"] == rate
    for at in range(0, len(speech), size):
        caller.send(pcm=speech[at : at + size], **({"segment_end": 1} if at + size >= len(speech) else {}))
    caller.ask(rest=REST_FRAMES)
    sound = caller.sound()
    np.testing.assert_array_equal(sound[: len(speech)], speech)
    assert not sound[len(speech) :].any()
    assert len(sound) == len(caller.frames) * rate // 25
    times = [frame["sound_time"][0] for frame in caller.frames.values()]
    assert times[: rate // 2 * 25 // rate] == pytest.approx([n / 25 for n in range(rate // 2 * 25 // rate)])
    assert times[-REST_FRAMES:] == [-1] * REST_FRAMES


def test_after_an_interruption_no_frame_of_the_dropped_words_is_sent(caller: Caller, prepared: str) -> None:
    caller.start(avatar=prepared, format="mouth", echo="true")
    for level in range(1, 6):  # each answer has a level of its own, and is interrupted
        answer = np.full(160_000, level, np.int16)
        first = caller.send(pcm=answer)
        caller.send(pcm=answer)
        caller.wait_for_frames(first, 3)
        cleared = caller.ask(clear=-1).cleared
        assert cleared
        assert cleared["next"] == cleared["last"] + 1
        caller.ask(rest=1)  # what is sent after the answer has a later index
        caller.wait_for_all(cleared["next"])
        assert {*np.concatenate([f["sound"] for n, f in caller.frames.items() if n >= cleared["next"]])} <= {0}
        said = sum((frame["sound"] == level).sum() for n, frame in caller.frames.items() if n <= cleared["last"])
        assert cleared["dropped"] == pytest.approx((320_000 - said) / 16_000)
        assert cleared["dropped"] > 0
    assert list(caller.frames) == list(range(len(caller.frames)))  # no index is missing or used twice


def test_motion_goes_on_after_the_frame_that_was_shown(caller: Caller, samples: Path, tmp_path: Path) -> None:
    image = cv2.imread(str(samples / "face.png"))[::2, ::2]
    moved = np.stack([np.roll(image, 4 * n, axis=1) for n in range(8)])
    clip = write_video(tmp_path / "clip.mp4", moved, fps="25").read_bytes()
    caller.start(face_file=clip, smooth="false")
    caller.ask(rest=8)
    caller.ask(pcm=PCM, clear=2, segment_end=1)  # the frames of the speech move, too
    boxes = {n: tuple(frame["box"]) for n, frame in caller.frames.items()}
    assert len({boxes[n] for n in range(8)}) == 8
    assert [boxes[n] for n in range(8, 14)] == [boxes[n] for n in (3, 4, 5, 6, 7, 0)]


def test_a_face_rests_in_real_time_until_the_next_request(caller: Caller, face: bytes) -> None:
    caller.start(face_file=face)
    start = time.monotonic()
    rest = caller.send(rest=-1)
    caller.wait_for_frames(rest, 25)
    assert time.monotonic() - start > 0.6  # up to `latency` of them come at once, if the rest begins late
    assert rest not in caller.stream.finished
    caller.ask(pcm=PCM, segment_end=1)
    assert rest in caller.stream.finished
    resting = [frame["frame"] for frame in caller.stream.responses[rest].frames.values()]
    for frame in resting:
        np.testing.assert_array_equal(frame, resting[0])
    last = caller.frames[max(caller.frames)]["frame"]  # a segment ends with a closed mouth
    np.testing.assert_allclose(last.astype(int), resting[0], atol=1)


def test_the_caller_of_a_rest_that_disconnects_is_noticed(served: Served, prepared: str, sequence: int) -> None:
    lost = Caller(served, sequence)
    lost.start(avatar=prepared, token="")
    rest = lost.send(rest=-1)
    lost.wait_for_frames(rest, 1)
    lost.stream.cancel()
    other = Caller(served, sequence)
    other.stream.wait_until(lambda: bool(other.start(avatar=prepared).session))
    other.ask(end=True)
    other.stream.cancel()


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"clear": -2}, "400 clear: the index of a frame that was sent, or -1, expected, got -2"),
        ({"clear": 7}, "400 clear: the index of a frame that was sent, or -1, expected, got 7; the last one is 3"),
        ({"clear": -1, "pcm": PCM[:10]}, "400 pcm: at least 20 ms"),
        ({"segment_end": 2}, "400 segment_end: 1, or 0"),
        ({"rest": 0}, "400 rest: a number of frames, or -1"),
        ({"rest": 751}, "400 rest: 1 to 750 frames, or -1"),
        ({}, "400 audio: send audio or pcm"),
    ],
)
def test_a_wrong_value_is_rejected_with_its_name_and_the_session_stays_as_it_is(
    caller: Caller, prepared: str, inputs: dict[str, Any], reason: str
) -> None:
    caller.start(avatar=prepared, format="mouth")
    caller.ask(rest=4)
    assert caller.ask(**inputs).error.startswith(reason)
    assert len(caller.ask(pcm=PCM, segment_end=1).frames) == FRAMES_OF_SESSION
    assert list(caller.frames) == list(range(4 + FRAMES_OF_SESSION))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"sample_rate": 7999}, "400 sample_rate: 8000 to 48000 Hz expected, got 7999"),
        ({"echo": "loud"}, "400 echo: true or false expected, got 'loud'"),
        ({"new_sequence": 7}, "400 new_sequence: 1, or 0"),
        ({"face_file": None, "token": ""}, "400 face_file: the field is missing"),
        ({"avatar": "unknown"}, "404 avatar: no avatar is kept under this id (any more); send face_file"),
        ({"avatar": "prepared", "face_file": b"x"}, "400 avatar: send avatar or face_file, not both"),
        ({"avatar": "prepared", "pads": "0,0,0,0"}, "400 pads: a prepared avatar has the options of its preparation"),
    ],
)
def test_a_wrong_start_is_rejected_with_the_name_of_the_input(
    caller: Caller, face: bytes, prepared: str, inputs: dict[str, Any], reason: str
) -> None:
    described = {} if "avatar" in inputs else {"face_file": face}
    inputs = {name: value for name, value in (described | inputs).items() if value is not None}
    if inputs.get("avatar") == "prepared":
        inputs["avatar"] = prepared
    assert caller.start(**inputs).error.startswith(reason)


def test_an_end_without_speech_has_an_empty_segment(caller: Caller, prepared: str) -> None:
    caller.start(avatar=prepared, format="mouth")
    assert caller.ask(segment_end=1).segments == [{"segment": 0, "first": 0, "last": -1, "duration": 0.0}]
    assert caller.ask(rest=2).segments == []
    ended = caller.ask(end=True)
    assert ended.summary
    assert ended.frames == {}
    assert ended.summary["frames"] == 2


def test_a_segment_may_end_with_any_number_of_samples(caller: Caller, prepared: str) -> None:
    caller.start(avatar=prepared, format="mouth")
    assert caller.ask(pcm=PCM[:1], segment_end=1).segments[0]["duration"] == 1 / 16_000


def test_a_session_of_a_prepared_avatar_shows_the_same_frames(
    served: Served, caller: Caller, face: bytes, prepared: str, sequence: int
) -> None:
    whole = run_session(served, face, sequence + 100_000)
    assert whole.session
    assert whole.session["avatar"] == prepared  # the same file with the same options
    other = run_session(served, face, sequence + 100_000, pads="0,20,0,0").session
    assert other
    assert other["avatar"] not in ("", prepared)
    assert len(prepared) >= 22  # 128 bits
    assert prepared not in served.log.read_text()
    session = caller.start(avatar=prepared, pcm=PCM, segment_end=1).session
    assert session
    assert {key: session[key] for key in ("fps", "width", "height", "frames", "avatar", "stand_ins")} == {
        key: whole.session[key] for key in ("fps", "width", "height", "frames", "avatar", "stand_ins")
    }
    assert caller.frames.keys() == whole.frames.keys()
    for n, frame in whole.frames.items():
        np.testing.assert_allclose(caller.frames[n]["frame"].astype(int), frame["frame"], atol=1)


def test_callers_with_one_id_get_new_sequences_that_only_they_know(
    served: Served, prepared: str, sequence: int
) -> None:
    callers = [Caller(served, sequence) for _ in range(2)]
    for each in callers:
        each.start(avatar=prepared, format="mouth", new_sequence=1)
    chosen = {each.sequence for each in callers}
    assert len(chosen) == 2
    assert all(isinstance(each, str) and len(each) >= 22 for each in chosen)
    for each in callers:
        assert len(each.ask(pcm=PCM, segment_end=1).frames) == FRAMES_OF_SESSION
        stranger = Caller(served, sequence)
        assert stranger.ask(pcm=PCM).error
        stranger.stream.cancel()
        assert each.ask(end=True).summary
        each.stream.cancel()
    whole = Caller(served, sequence)
    responses = whole.ask(start=True, end=True, avatar=prepared, pcm=PCM, format="mouth", new_sequence=1)
    assert responses.session
    assert responses.summary
    whole.stream.cancel()


def _memory(served: Served) -> int:
    """Return the private bytes of the process of `live`."""
    for pid in stub_processes(served):
        if "/live/1/" in psutil.Process(pid).cmdline()[1]:
            return int(psutil.Process(pid).memory_full_info().uss)
    raise LookupError


def _interrupt(caller: Caller, times: int) -> None:
    for _ in range(times):
        first = caller.send(pcm=np.resize(PCM, 160_000))
        caller.wait_for_frames(first, 1)
        assert caller.ask(clear=-1).cleared


def _grows(served: Served, work: Callable[[], None]) -> int:
    before = _memory(served)
    work()
    return _memory(served) - before


def test_ten_interruptions_leave_the_memory_as_it_was(served: Served, caller: Caller, face: bytes) -> None:
    """A leak of the dropped speech alone would be 16 MiB in each round; threads and their memory come once."""
    caller.start(face_file=face, format="mouth")
    grown: list[int] = []
    while not grown or (grown[-1] > 4 * MIB and len(grown) < ROUNDS):
        grown.append(_grows(served, lambda: _interrupt(caller, 10)))
    assert grown[-1] <= 4 * MIB, grown


@pytest.mark.slow
def test_hundreds_of_interruptions_leave_the_memory_as_it_was(served: Served, caller: Caller, face: bytes) -> None:
    caller.start(face_file=face, format="mouth")
    _interrupt(caller, 10)
    assert _grows(served, lambda: _interrupt(caller, 300)) < 64 * MIB


@pytest.mark.slow
def test_a_session_that_rests_or_has_a_new_sequence_may_be_silent_for_any_time(caller: Caller, prepared: str) -> None:
    caller.start(avatar=prepared, format="mouth", new_sequence=1)
    time.sleep(SEQUENCE_IDLE_SECONDS / 2)  # Triton would have forgotten it
    start, rest = time.monotonic(), caller.send(rest=-1)
    time.sleep(SEQUENCE_IDLE_SECONDS + 2)
    assert len(caller.ask(pcm=PCM, segment_end=1).frames) == FRAMES_OF_SESSION
    frames = len(caller.stream.responses[rest].frames)
    assert 25 * SEQUENCE_IDLE_SECONDS / 2 < frames < 25 * (time.monotonic() - start) + 10


def test_the_limit_of_sessions_holds_for_new_sequences(served: Served, prepared: str, sequence: int) -> None:
    limit = LiveSettings().live_sessions
    callers = [Caller(served, sequence) for _ in range(limit + 1)]
    started = [each.start(avatar=prepared, new_sequence=1) for each in callers]
    assert [bool(each.session) for each in started] == [True] * limit + [False]
    assert started[-1].error.startswith(f"503 limit of {limit} live sessions reached")
    for each in callers[:limit]:
        assert each.ask(end=True).summary
    for each in callers:
        each.stream.cancel()
