"""Requests of a stream in an unexpected order: each gets its responses, in the order of the requests."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.live_streams import (
    FRAMES_OF_SPEECH,
    LONG_SPEECH,
    SESSION_CLOSED,
    SPEECH,
    Stream,
    finish,
    live_request,
    sequences,
)
from tests.support.triton_server import Served
from tests.support.triton_streams import make_request


def test_a_second_start_with_the_token_ends_the_first_session_and_each_of_its_requests(
    served: Served, face: bytes, sequence: int
) -> None:
    stream = Stream(served)
    stream.send(live_request(sequence, "first", start=True, face_file=face))
    stream.wait_until_finished("first")
    token = stream.token("first")
    stream.send(
        live_request(sequence, "running", token=token, audio=LONG_SPEECH),
        live_request(sequence, "queued", token=token, audio=SPEECH),
    )
    stream.wait_until(lambda: bool(stream.responses["running"].frames))
    stream.send(live_request(sequence, "second", start=True, face_file=face, token=token))
    stream.wait_until_finished("second")
    stream.send(live_request(sequence, "last", end=True, audio=SPEECH, token=stream.token("second")))
    stream.end()
    assert stream.responses["running"].error == stream.responses["queued"].error == SESSION_CLOSED
    assert stream.responses["second"].session
    assert stream.responses["last"].summary
    assert stream.responses["last"].summary["duration"] == pytest.approx(0.3)


def test_an_invalid_start_with_the_token_ends_the_previous_session(served: Served, face: bytes, sequence: int) -> None:
    """Otherwise the speech that follows would get frames of the previous face."""
    stream = Stream(served)
    stream.send(live_request(sequence, "previous", start=True, face_file=face))
    stream.wait_until_finished("previous")
    token = stream.token("previous")
    stream.send(
        live_request(sequence, "bad", start=True, face_file=face, pads="9" * 2000, token=token),
        live_request(sequence, "speech", audio=SPEECH, token=token),
    )
    stream.end()
    assert stream.responses["bad"].error.startswith("400 pads: the value is longer than")
    assert stream.responses["speech"].error == stream.responses["bad"].error
    assert stream.responses["speech"].frames == {}


@pytest.mark.parametrize("attempt", range(15))
def test_the_first_error_is_the_reason_of_a_failed_start_and_so_are_all_that_follow(
    served: Served, sequence: int, attempt: int
) -> None:
    stream = Stream(served)
    names = [f"piece-{n}" for n in range(20)]
    stream.send(
        live_request(sequence, "bad", start=True, face_file=b"not an image"),
        *(live_request(sequence, name, audio=SPEECH) for name in names),
        live_request(sequence, "last", end=True),
    )
    stream.end()
    assert {stream.responses[name].error for name in stream.finished} == {
        "400 face_file: not an image that can be read"
    }
    assert set(stream.finished) == {"bad", *names, "last"}


def test_an_invalid_last_request_gets_an_error_and_no_summary(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(
        live_request(sequence, "first", start=True, face_file=face), live_request(sequence, "speech", audio=SPEECH)
    )
    stream.send(live_request(sequence, "last", end=True, audio=SPEECH, pcm=np.zeros(640, np.int16)))
    stream.end()
    assert stream.responses["last"].error == "400 pcm: send audio or pcm, not both"
    assert stream.responses["last"].summary is None
    assert stream.responses["speech"].error == ""
    assert len(stream.responses["speech"].frames) == FRAMES_OF_SPEECH


def test_an_invalid_request_gets_its_error_in_the_order_of_the_requests(
    served: Served, face: bytes, sequence: int
) -> None:
    stream = Stream(served)
    stream.send(
        live_request(sequence, "first", start=True, face_file=face, format="mouth"),
        live_request(sequence, "speech", audio=np.resize(SPEECH, 48_000)),
        live_request(sequence, "short", audio=SPEECH[:10]),
        live_request(sequence, "more", audio=SPEECH),
        live_request(sequence, "last", end=True),
    )
    stream.wait_until_finished("short")
    frames_before = len(stream.responses["speech"].frames)
    stream.end()
    assert stream.responses["short"].error.startswith("400 audio: at least 20 ms")
    summary = stream.responses["last"].summary
    assert summary
    assert summary["duration"] == pytest.approx(3.3)
    assert frames_before  # not all: where many wait to be sent, Triton mixes them with the responses to later requests
    frames = [n for name in ("speech", "more", "last") for n in stream.responses[name].frames]
    assert frames == list(range(summary["frames"]))


def test_a_session_stays_open_after_its_stream_has_ended(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(
        live_request(sequence, "first", start=True, face_file=face), live_request(sequence, "speech", audio=SPEECH)
    )
    stream.end()
    assert len(stream.responses["speech"].frames) == FRAMES_OF_SPEECH
    assert finish(served, sequence).summary  # on another stream


def test_sessions_and_jobs_share_one_stream(served: Served, face: bytes, recording: bytes) -> None:
    chosen = [next(sequences) for _ in range(2)]
    stream = Stream(served)
    stream.send(make_request("avatar", "video", face_file=face, audio_file=recording))
    stream.send(*(live_request(each, f"{each} first", start=True, face_file=face) for each in chosen))
    for n in range(5):
        pieces = (live_request(each, f"{each} {n}", audio=SPEECH[n * 960 :][:960], end=n == 4) for each in chosen)
        stream.send(*pieces, make_request("avatar", f"bad {n}", face_file=b"x", audio_file=recording))
    stream.end()
    assert stream.responses["video"].summary
    assert {stream.responses[f"bad {n}"].error for n in range(5)} == {"400 face_file: not an image that can be read"}
    for each in chosen:
        summary = stream.responses[f"{each} 4"].summary
        assert summary
        assert summary["duration"] == pytest.approx(0.3)
        frames = [n for piece in range(5) for n in stream.responses[f"{each} {piece}"].frames]
        assert frames == list(range(summary["frames"]))
