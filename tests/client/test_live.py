"""Live sessions: speech is sent, frames are received, and a session ends normally, by an error or by cancellation."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import grpc
import numpy as np
import pytest

from avatar_client import (
    AvatarClient,
    Cancelled,
    Frame,
    InvalidRequest,
    LiveSummary,
    ServerError,
    SessionInfo,
    Unavailable,
)
from tests.client import fake_server as fake
from tests.client.fake_server import FakeServer, Request

FACE = b"an image"


def speech(samples: int, level: int = 12_800) -> np.ndarray:
    return np.full(samples, level, np.int16)


def silent_session(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    """Open the session, and send no further response."""
    yield fake.session_response(next(requests))
    server.cancelled.wait(fake.SECONDS)


def reordered_session(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    """Send the responses to a session, each pair of frames swapped."""
    responses = fake.default_live(server, requests, context)
    yield next(responses)
    *frames, final, summary = responses
    for first, second in zip(frames[::2], frames[1::2], strict=True):
        yield from (second, first)
    yield from (final, summary)


def test_the_first_request_has_the_face_and_the_options(client: AvatarClient, server: FakeServer) -> None:
    with client.live(FACE, format="bgr", background="White", pads=(0, 1, 2, 3)) as session:
        assert session.info == SessionInfo(Fraction(25), 6, 4, 1, 0.2, "bgr")
    (request,) = server.requests
    assert request.inputs.pop("face_file").tobytes() == FACE
    assert request.inputs == {"format": "bgr", "background": "White", "pads": "0,1,2,3"}
    number = request.parameters.pop("sequence_id")
    assert 0 < number < 2**63
    assert request.parameters == {"sequence_start": True, "sequence_end": False}


def test_frames_come_in_order_though_responses_change_places(client: AvatarClient, server: FakeServer) -> None:
    server.live = reordered_session
    with client.live(FACE) as session:
        session.end(speech(6 * 640))
        frames = list(session)
    assert [frame.index for frame in frames] == list(range(6))
    assert session.summary is not None


def test_speech_gets_its_frames_and_the_end_gets_the_summary(client: AvatarClient) -> None:
    with client.live(FACE) as session:
        for level in (0, 12_800):
            session.send(speech(960, level))
        session.end()
        frames = list(session)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.box for frame in frames] == [(1, 2, 3, 4), (1, 2, 3, 4), (0, 0, 0, 0)]
    for frame, level in zip(frames, (0, 100, 100), strict=True):
        assert frame.jpeg is None and frame.image is not None
        np.testing.assert_array_equal(frame.image, np.full((4, 6, 3), level, np.uint8))
        frame.image[0] = 7  # the caller may change it
    assert session.summary == LiveSummary(3, 3 / 25, 1)
    assert list(session) == []


def test_floats_are_sent_as_audio_and_integers_as_pcm(client: AvatarClient, server: FakeServer) -> None:
    with client.live(FACE) as session:
        session.send(speech(640))
        session.send(np.full(640, 0.5, np.float32))
        session.end()
        assert len(list(session)) == 2
    _, pcm, audio, end = server.requests
    assert set(pcm.inputs) == {"pcm"} and set(audio.inputs) == {"audio"}
    assert audio.inputs["audio"].dtype == np.float32
    assert end.inputs["pcm"].shape == (0,)
    assert [each.parameters["sequence_end"] for each in server.requests] == [False, False, False, True]
    assert len({each.parameters["sequence_id"] for each in server.requests}) == 1


def test_long_speech_is_sent_in_pieces(client: AvatarClient, server: FakeServer) -> None:
    samples = np.arange(640 * 510, dtype=np.int32).astype(np.int16)
    with client.live(FACE) as session:
        session.send(samples)
        session.end()
        assert len(list(session)) == 510
    pieces = [request.inputs["pcm"] for request in server.requests[1:-1]]
    assert len(pieces) == 3
    np.testing.assert_array_equal(np.concatenate(pieces), samples)


def test_jpeg_frames_are_returned_as_bytes(client: AvatarClient) -> None:
    with client.live(FACE, format="jpeg") as session:
        session.send(speech(640))
        session.end()
        (frame,) = session
    assert frame.image is None
    assert frame.jpeg == b"JPEG\x64"


def test_one_thread_can_receive_frames_while_another_sends_speech(client: AvatarClient) -> None:
    frames: list[Frame] = []
    with client.live(FACE) as session:
        receiver = threading.Thread(target=lambda: frames.extend(session))
        receiver.start()
        for _ in range(50):
            session.send(speech(640))
        session.end()
    receiver.join()
    assert [frame.index for frame in frames] == list(range(50))
    assert session.summary is not None


def test_frames_can_be_received_between_two_pieces_without_blocking(client: AvatarClient) -> None:
    with client.live(FACE) as session:
        assert list(session.frames(block=False)) == []
        frames: list[Frame] = []
        for _ in range(5):
            session.send(speech(640))
            frames += session.frames(block=False)
        while len(frames) < 5:
            frames += session.frames(block=False)
        assert list(session.frames(block=False)) == []
        assert session.summary is None
        session.end()
        session.end()
        frames += session
    assert [frame.index for frame in frames] == list(range(5))


def test_the_remaining_frames_can_be_received_after_the_block(client: AvatarClient) -> None:
    with client.live(FACE) as session:
        session.send(speech(6400))
        session.end()
    assert len(list(session)) == 10


def test_leaving_the_block_without_the_end_cancels_the_call(client: AvatarClient, server: FakeServer) -> None:
    with client.live(FACE) as session:
        session.send(speech(640))
    assert server.cancelled.wait(fake.SECONDS)
    with pytest.raises(Cancelled):
        list(session)
    with pytest.raises((Cancelled, RuntimeError)):
        session.send(speech(640))


def test_an_error_in_the_block_cancels_even_after_the_end(client: AvatarClient, server: FakeServer) -> None:
    server.live = silent_session
    with pytest.raises(ZeroDivisionError), client.live(FACE) as session:
        session.end()
        raise ZeroDivisionError
    assert server.cancelled.wait(fake.SECONDS)


def test_garbage_collection_of_a_session_cancels_its_call(client: AvatarClient, server: FakeServer) -> None:
    session = client.live(FACE)
    session.send(speech(640))
    del session
    gc.collect()
    assert server.cancelled.wait(fake.SECONDS)


def test_closing_the_client_cancels_its_sessions(server: FakeServer) -> None:
    with AvatarClient(server.address) as client:
        session = client.live(FACE)
    assert server.cancelled.wait(fake.SECONDS)
    with pytest.raises(Cancelled):
        list(session)


def test_cancelling_wakes_a_thread_that_waits_for_frames(client: AvatarClient, server: FakeServer) -> None:
    with client.live(FACE) as session:
        threading.Timer(0.1, session.cancel).start()
        with pytest.raises(Cancelled):
            list(session)
    assert server.cancelled.wait(fake.SECONDS)


def test_a_session_over_the_limit_is_unavailable_and_not_retried(client: AvatarClient, server: FakeServer) -> None:
    def full(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        next(requests)
        yield fake.error_response("503 limit of 4 live sessions reached")

    server.live = full
    with pytest.raises(Unavailable, match="limit of 4"):
        client.live(FACE)
    assert server.streams == 1


def test_an_unreachable_server_is_not_retried(client: AvatarClient, server: FakeServer) -> None:
    server.failures.append(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(Unavailable):
        client.live(FACE)
    assert server.streams == 1


def test_an_invalid_face_is_rejected_at_the_start(client: AvatarClient, server: FakeServer) -> None:
    def reject(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        next(requests)
        yield fake.error_response("400 face_file: not an image that can be read")

    server.live = reject
    with pytest.raises(InvalidRequest) as caught:
        client.live(FACE)
    assert (caught.value.code, caught.value.message) == (400, "face_file: not an image that can be read")


def test_an_error_during_a_session_is_raised_by_sending_and_by_receiving(
    client: AvatarClient, server: FakeServer
) -> None:
    def fail(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        yield fake.session_response(next(requests))
        next(requests)
        yield fake.error_response("500 internal error")

    server.live = fail
    with client.live(FACE) as session:
        session.send(speech(640))
        with pytest.raises(ServerError, match="internal error"):
            list(session)
        with pytest.raises(ServerError, match="internal error"):
            session.send(speech(640))
        with pytest.raises(ServerError, match="internal error"):
            session.end()


def test_a_stream_that_ends_before_the_speech_is_a_server_error(client: AvatarClient, server: FakeServer) -> None:
    def end_early(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        yield fake.session_response(next(requests))

    server.live = end_early
    session = client.live(FACE)
    with pytest.raises(ServerError, match="before the speech"):
        list(session)


def test_a_server_that_does_not_respond_to_the_end_is_unavailable(server: FakeServer) -> None:
    server.live = silent_session
    with AvatarClient(server.address, timeout=1.0) as client:
        session = client.live(FACE)
        session.end()
        with pytest.raises(Unavailable, match="did not answer"):
            list(session)
    assert server.cancelled.wait(fake.SECONDS)


def test_a_server_that_sends_no_frame_for_complete_speech_is_unavailable(server: FakeServer) -> None:
    server.live = silent_session
    with AvatarClient(server.address, timeout=1.0) as client:
        session = client.live(FACE)
        session.send(speech(16_000))
        with pytest.raises(Unavailable, match="did not answer"):
            list(session)
    assert server.cancelled.wait(fake.SECONDS)


def test_a_session_without_enough_speech_for_a_frame_waits_for_more(server: FakeServer) -> None:
    with AvatarClient(server.address, timeout=1.0) as client, client.live(FACE) as session:
        taken: list[Frame] = []
        taker = threading.Thread(target=lambda: taken.extend(session))
        taker.start()
        threading.Event().wait(2.0)
        session.send(speech(640))
        session.end()
        taker.join(fake.SECONDS)
    assert len(taken) == 1


def test_every_request_after_the_first_has_the_token_and_the_last_frame(
    client: AvatarClient, server: FakeServer
) -> None:
    def with_token(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        """Be a server of API 1.1."""
        responses = fake.default_live(server, requests, context)
        started = next(responses)
        output = started.infer_response.raw_output_contents[0]
        info = json.dumps({**json.loads(output[4:]), "token": "secret"}).encode()
        started.infer_response.raw_output_contents[0] = len(info).to_bytes(4, "little") + info
        yield started
        yield from responses

    server.live = with_token
    with client.live(FACE) as session:
        assert "secret" not in repr(session.info)
        session.send(speech(1280))
        iterator = iter(session)
        assert [next(iterator).index for _ in range(2)] == [0, 1]
        session.send(speech(640))
        session.end()
        assert len(list(session)) == 1
    first, *others = server.requests
    assert {"token", "received"}.isdisjoint(first.inputs)
    assert [request.inputs["token"] for request in others] == ["secret"] * 3
    assert [request.inputs["received"].tolist() for request in others] == [[-1], [1], [1]]


def test_a_server_that_does_not_respond_to_the_start_is_unavailable(server: FakeServer) -> None:
    server.live = fake.waiting_avatar
    with AvatarClient(server.address, timeout=1.0) as client, pytest.raises(Unavailable, match="did not answer"):
        client.live(FACE)
    assert server.cancelled.wait(fake.SECONDS)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(319, np.int16),
        np.zeros(0, np.float32),
        np.zeros(640),
        np.zeros((640, 2), np.int16),
        np.zeros(640, np.int32),
        [0.0] * 640,
    ],
    ids=["short", "empty", "FP64", "stereo", "INT32", "list"],
)
def test_invalid_samples_are_rejected_and_the_session_continues(client: AvatarClient, samples: Any) -> None:
    with client.live(FACE) as session:
        with pytest.raises(InvalidRequest, match=r"audio|pcm"):
            session.send(samples)
        session.send(speech(640))
        session.end()
        assert len(list(session)) == 1


def test_sending_after_the_end_raises_an_error(client: AvatarClient) -> None:
    with client.live(FACE) as session:
        session.end()
        with pytest.raises(RuntimeError, match="ended"):
            session.send(speech(640))


def test_an_unknown_option_is_a_type_error(client: AvatarClient, server: FakeServer) -> None:
    with pytest.raises(TypeError, match="quality"):
        client.live(FACE, quality="high")  # type: ignore[call-arg]
    assert not server.streams


def test_the_last_piece_may_be_short(client: AvatarClient, server: FakeServer) -> None:
    with client.live(FACE) as session:
        session.send(speech(640))
        session.end(speech(100))
        list(session)
    _, piece, last = server.requests
    assert (len(piece.inputs["pcm"]), len(last.inputs["pcm"])) == (640, 100)
    assert last.parameters["sequence_end"] is True
    with client.live(FACE) as session, pytest.raises(InvalidRequest):
        session.end(np.zeros(10, np.float64))  # type: ignore[arg-type]
