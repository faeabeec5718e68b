"""Sessions of `live` whose requests come in an order that nobody should send."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
from served import Served
from stream_calls import Talk

from avatar.live import NO_SESSION

GONE = f"400 {NO_SESSION}"
QUIET = np.zeros(4000, np.float32)  # 0.25 s
_sequences = count(70_000)


@pytest.fixture(scope="module")
def face(samples: Path) -> bytes:
    picture = cv2.imread(str(samples / "face.png"))[::2, ::2]
    return cv2.imencode(".png", picture)[1].tobytes()


@pytest.fixture
def talk(served: Served) -> Iterator[Talk]:
    talk = Talk(served.stub, next(_sequences))
    yield talk
    talk.hang_up()


def test_what_is_said_while_the_face_is_looked_for_is_answered_in_its_order(talk: Talk, face: bytes) -> None:
    talk.say(start=True, face_file=face, detection="exact")
    for _ in range(5):
        talk.say(audio=QUIET)
    talk.say(end=True, audio=QUIET)
    answers = talk.hear(7)
    assert answers.error == ""
    assert answers.summary
    assert list(answers.frames) == list(range(answers.summary["frames"]))


def test_what_was_said_to_a_face_that_does_not_do_is_refused_too(talk: Talk) -> None:
    talk.say(start=True, face_file=b"\x89PNG\r\n\x1a\nrubbish")
    talk.say(audio=QUIET)
    talk.say(end=True, audio=QUIET)
    assert talk.hear().error.startswith("400 ")
    assert talk.hear().error == GONE
    assert talk.hear().error == GONE


def test_a_second_beginning_takes_the_place_of_the_first(talk: Talk, face: bytes) -> None:
    talk.say(start=True, face_file=face, format="bgr")
    talk.say(audio=QUIET)
    talk.say(start=True, face_file=face, format="jpeg")
    talk.say(end=True, audio=QUIET)
    answers = talk.hear(4)
    assert answers.summary
    assert answers.session
    assert answers.session["format"] == "jpeg"
    assert "jpeg" in answers.frames[answers.summary["frames"] - 1]


def test_a_session_of_one_request_has_all_its_frames(talk: Talk, face: bytes) -> None:
    talk.say(start=True, end=True, face_file=face, audio=QUIET)
    answers = talk.hear()
    assert answers.error == ""
    assert answers.session
    assert answers.summary
    assert len(answers.frames) == answers.summary["frames"] > 0


def test_sound_that_is_no_number_is_silence(talk: Talk, face: bytes) -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 3e38] * 1000, np.float32)
    talk.say(start=True, face_file=face)
    talk.say(end=True, audio=odd)
    answers = talk.hear(2)
    assert answers.error == ""
    assert answers.summary


def test_two_sessions_may_share_a_stream(served: Served, face: bytes) -> None:
    one = Talk(served.stub, next(_sequences))
    first, second = next(_sequences), next(_sequences)
    for sequence in (first, second):
        one._sequence = sequence
        one.say(start=True, face_file=face)
        one.say(end=True, audio=QUIET)
    answers = one.hear(4)
    assert answers.error == ""
    assert answers.summary
    one.hang_up()


def test_after_all_that_nothing_is_left(served: Served) -> None:
    assert served.leftovers() == []
    assert served.ffmpegs() == []
