"""Requests of a stream in an unexpected order: each is answered, in its turn."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.live_streams import (
    GONE,
    LONG,
    SPEECH,
    SPOKEN,
    Stream,
    finish,
    live,
    sequences,
)
from tests.support.triton_server import Served
from tests.support.triton_streams import request


def test_a_second_start_ends_the_first_session_and_each_of_its_requests(
    served: Served, face: bytes, sequence: int
) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=face))
    stream.until_over("first")
    stream.send(live(sequence, "under way", audio=LONG), live(sequence, "in line", audio=SPEECH))
    stream.until(lambda: bool(stream.answers["under way"].frames))
    stream.send(
        live(sequence, "second", start=True, face_file=face),
        live(sequence, "last", end=True, audio=SPEECH),
    )
    stream.end()
    assert stream.answers["under way"].error == stream.answers["in line"].error == GONE
    assert stream.answers["second"].session
    assert stream.answers["last"].summary
    assert stream.answers["last"].summary["duration"] == pytest.approx(0.3)


def test_a_second_start_ends_the_preparation_of_the_first(served: Served, sequence: int, samples: Path) -> None:
    large = cv2.resize(cv2.imread(str(samples / "face.png")), (2560, 1920))  # takes longer than the pause below
    whole = cv2.imencode(".png", large)[1].tobytes()
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=whole, background="#102030"))  # takes a segmentation
    time.sleep(0.1)
    stream.send(live(sequence, "second", start=True, end=True, face_file=whole))
    stream.end()
    assert stream.answers["first"].error == GONE
    assert stream.answers["first"].session is None
    assert stream.answers["second"].summary


def test_a_first_request_that_does_not_do_ends_the_session_of_before(
    served: Served, face: bytes, sequence: int
) -> None:
    """Or who follows with speech would get the pictures of somebody else."""
    stream = Stream(served)
    stream.send(live(sequence, "before", start=True, face_file=face))
    stream.until_over("before")
    stream.send(
        live(sequence, "bad", start=True, face_file=face, pads="9" * 2000),
        live(sequence, "speech", audio=SPEECH),
    )
    stream.end()
    assert stream.answers["bad"].error.startswith("400 pads: the value is longer than")
    assert stream.answers["speech"].error == GONE
    assert stream.answers["speech"].frames == {}


def test_pieces_behind_a_beginning_that_fails_are_all_answered(served: Served, sequence: int) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "bad", start=True, face_file=b"no picture"))
    names = [f"piece-{n}" for n in range(20)]
    stream.send(*(live(sequence, name, audio=SPEECH) for name in names), live(sequence, "last", end=True))
    stream.end()
    assert stream.answers["bad"].error.startswith("400 face_file: ")
    assert {stream.answers[name].error for name in (*names, "last")} == {GONE}


def test_a_last_request_that_does_not_do_is_an_error_and_no_summary(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=face), live(sequence, "speech", audio=SPEECH))
    stream.send(live(sequence, "last", end=True, audio=SPEECH, pcm=np.zeros(640, np.int16)))
    stream.end()
    assert stream.answers["last"].error == "400 pcm: send audio or pcm, not both"
    assert stream.answers["last"].summary is None
    assert stream.answers["speech"].error == ""
    assert len(stream.answers["speech"].frames) == SPOKEN


def test_a_refused_piece_is_answered_in_its_turn(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(
        live(sequence, "first", start=True, face_file=face),
        live(sequence, "speech", audio=SPEECH),
        live(sequence, "short", audio=SPEECH[:10]),
        live(sequence, "more", audio=SPEECH),
        live(sequence, "last", end=True),
    )
    stream.end()
    assert stream.answers["short"].error.startswith("400 audio: at least 20 ms")
    assert stream.answers["last"].summary
    assert stream.answers["last"].summary["duration"] == pytest.approx(0.6)
    assert stream.over.index("short") < stream.over.index("more") < stream.over.index("last")


def test_our_side_may_close_before_a_session_ends(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=face), live(sequence, "speech", audio=SPEECH))
    stream.end()
    assert len(stream.answers["speech"].frames) == SPOKEN
    assert finish(served, sequence).summary  # on another one


def test_sessions_and_jobs_share_one_stream(served: Served, face: bytes, recording: bytes) -> None:
    chosen = [next(sequences) for _ in range(2)]
    stream = Stream(served)
    stream.send(request("avatar", "video", face_file=face, audio_file=recording))
    stream.send(*(live(each, f"{each} first", start=True, face_file=face) for each in chosen))
    for n in range(5):
        pieces = (live(each, f"{each} {n}", audio=SPEECH[n * 960 :][:960], end=n == 4) for each in chosen)
        stream.send(*pieces, request("avatar", f"bad {n}", face_file=b"x", audio_file=recording))
    stream.end()
    assert stream.answers["video"].summary
    assert {stream.answers[f"bad {n}"].error for n in range(5)} == {"400 face_file: not an image that can be read"}
    for each in chosen:
        summary = stream.answers[f"{each} 4"].summary
        assert summary
        assert summary["duration"] == pytest.approx(0.3)
        frames = [n for piece in range(5) for n in stream.answers[f"{each} {piece}"].frames]
        assert frames == list(range(summary["frames"]))
