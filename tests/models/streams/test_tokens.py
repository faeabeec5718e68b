"""Who may use a session: the caller that has its token, and not every caller that knows its id."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.support.live_streams import (
    FRAMES_OF_SPEECH,
    LONG_SPEECH,
    SPEECH,
    Stream,
    finish,
    live_request,
)
from tests.support.triton_server import Served
from tests.support.triton_streams import Responses

NOT_THE_OWNER = "403 token: not the token of this session; send the one that its `session` response contains"
IN_USE = (
    "409 another session runs under this sequence_id: choose a random one; "
    "to replace that session, send its token with the first request"
)


@pytest.fixture(scope="module")
def other_face(face: bytes) -> bytes:
    """A face that a caller can tell apart from `face`: upside down in color."""
    image = cv2.imdecode(np.frombuffer(face, np.uint8), cv2.IMREAD_COLOR)
    darker = (image * 0.6).astype(np.uint8)
    return cv2.imencode(".png", darker)[1].tobytes()


def start(served: Served, sequence: int, face: bytes, **inputs: str) -> tuple[Stream, str]:
    """Start a session on a stream of its own; return its stream and its token."""
    stream = Stream(served)
    stream.send(live_request(sequence, "start", start=True, face_file=face, **inputs))  # type: ignore[arg-type]
    stream.wait_until_finished("start")
    return stream, stream.token("start")


def respond(stream: Stream, sequence: int, name: str, **inputs: object) -> Responses:
    """Send one request and return what it was answered."""
    stream.send(live_request(sequence, name, **inputs))  # type: ignore[arg-type]
    stream.wait_until_finished(name)
    return stream.responses[name]


def brightness(responses: Responses) -> float:
    return float(np.mean([frame["frame"].mean() for frame in responses.frames.values()]))


def test_every_session_has_another_token(served: Served, face: bytes, sequence: int) -> None:
    tokens = set()
    for _ in range(3):
        stream, token = start(served, sequence, face)
        assert len(token) >= 22  # 128 bits
        tokens.add(token)
        assert respond(stream, sequence, "end", end=True, token=token).summary
        stream.end()
    assert len(tokens) == 3
    assert not any(token in served.log.read_text() for token in tokens)


def test_a_caller_without_the_token_works_as_with_api_1_0(served: Served, face: bytes, sequence: int) -> None:
    stream, _ = start(served, sequence, face)
    assert len(respond(stream, sequence, "speech", audio=SPEECH).frames) == FRAMES_OF_SPEECH
    assert respond(stream, sequence, "end", end=True).summary
    stream.end()


@pytest.mark.parametrize("wrong", [None, "", "x", "another"], ids=["none", "empty", "short", "of another session"])
def test_a_stranger_can_neither_send_speech_nor_end_a_session(
    served: Served, face: bytes, sequence: int, wrong: str | None
) -> None:
    ours, token = start(served, sequence, face)
    whole = Responses()
    whole.frames |= respond(ours, sequence, "ours", audio=SPEECH, token=token).frames
    if wrong == "another":
        other, wrong = start(served, sequence + 100_000, face)
        assert respond(other, sequence + 100_000, "end", end=True, token=wrong).summary
        other.end()
    theirs = Stream(served)
    inputs = {} if wrong is None else {"token": wrong}
    for name, is_end in (("speech", False), ("end", True), ("after", False)):
        refused = respond(theirs, sequence, name, end=is_end, audio=SPEECH, **inputs)
        assert refused.error == NOT_THE_OWNER
        assert refused.frames == {}
    theirs.end()
    assert respond(ours, sequence, "more", audio=SPEECH, token=token).error == ""
    last = respond(ours, sequence, "end", end=True, token=token)
    assert last.summary
    assert last.summary["duration"] == pytest.approx(0.6)  # what the stranger has sent is not part of it
    ours.end()


@pytest.mark.parametrize("protected", [True, False], ids=["with tokens", "as API 1.0"])
def test_a_start_by_another_caller_is_refused_and_the_session_goes_on(
    served: Served, face: bytes, other_face: bytes, sequence: int, protected: bool
) -> None:
    ours, token = start(served, sequence, face)
    inputs = {"token": token} if protected else {}
    before = respond(ours, sequence, "before", audio=SPEECH, **inputs)
    theirs = Stream(served)
    theirs.send(live_request(sequence, "start", start=True, end=True, face_file=other_face, audio=SPEECH))
    theirs.wait_until_finished("start")
    theirs.end()
    assert theirs.responses["start"].error == IN_USE
    assert theirs.responses["start"].frames == {}
    after = respond(ours, sequence, "after", audio=SPEECH, **inputs)
    assert after.error == ""
    assert brightness(after) == pytest.approx(brightness(before), rel=0.05)
    last = respond(ours, sequence, "end", end=True, **inputs)
    assert last.summary
    assert last.summary["duration"] == pytest.approx(0.6)
    ours.end()


def test_the_requests_after_a_refused_start_get_its_reason(
    served: Served, face: bytes, other_face: bytes, sequence: int
) -> None:
    ours, token = start(served, sequence, face, token="")
    theirs = Stream(served)
    names = [f"piece-{n}" for n in range(10)]
    theirs.send(
        live_request(sequence, "start", start=True, face_file=other_face),
        *(live_request(sequence, name, audio=SPEECH) for name in names),
    )
    theirs.end()
    assert {theirs.responses[name].error for name in ("start", *names)} == {IN_USE}
    assert respond(ours, sequence, "end", end=True, token=token).summary
    ours.end()


def test_an_old_owner_cannot_use_the_next_session_of_its_id(
    served: Served, face: bytes, other_face: bytes, sequence: int
) -> None:
    old, old_token = start(served, sequence, face)
    assert respond(old, sequence, "end", end=True, token=old_token).summary
    new, token = start(served, sequence, other_face, token="")
    for name, is_end in (("late", False), ("late end", True)):
        assert respond(old, sequence, name, end=is_end, audio=SPEECH, token=old_token).error == NOT_THE_OWNER
    assert respond(old, sequence, "without", audio=SPEECH).error == NOT_THE_OWNER
    assert respond(old, sequence, "start again", start=True, face_file=face, token=old_token).error == IN_USE
    assert respond(new, sequence, "end", end=True, audio=SPEECH, token=token).summary
    old.end()
    new.end()


def test_an_empty_token_protects_a_session_from_its_start(served: Served, face: bytes, sequence: int) -> None:
    ours, token = start(served, sequence, face, token="")
    assert respond(ours, sequence, "without", audio=SPEECH).error == NOT_THE_OWNER
    assert respond(ours, sequence, "with", audio=SPEECH, token=token).error == ""
    assert finish(served, sequence).error == NOT_THE_OWNER
    assert respond(ours, sequence, "end", end=True, token=token).summary
    ours.end()


def test_a_session_whose_stream_was_cancelled_does_not_hold_its_id(served: Served, face: bytes, sequence: int) -> None:
    name, lost = f"lost-{sequence}", Stream(served)
    lost.send(live_request(sequence, name, start=True, face_file=face))
    lost.send(*(live_request(sequence, f"piece-{n}", audio=LONG_SPEECH) for n in range(3)))
    # in progress until another request comes, however fast the speech is done
    lost.send(live_request(sequence, "rest", rest=np.array([-1], np.int32)))
    lost.wait_until(lambda: bool(lost.responses["piece-0"].frames))
    lost.cancel()
    again = Stream(served)
    number = 0

    def is_started() -> bool:
        nonlocal number
        number += 1
        responses = respond(again, sequence, f"again-{number}", start=True, face_file=face)
        assert responses.session or responses.error == IN_USE
        return bool(responses.session)

    again.wait_until(is_started)
    assert f"live [{name}] session closed: no request" not in served.log.read_text()  # as of a session that is idle
    assert respond(again, sequence, "end", end=True).summary
    again.end()
