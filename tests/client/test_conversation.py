"""Conversations in a live session: what the client sends for them, and the order of the events that it returns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from avatar_client import AvatarClient, Cleared, Frame, InvalidRequest, SegmentEnd, ServerError, Unavailable
from tests.client import fake_server as fake
from tests.client.fake_server import FakeServer, Request

FACE = b"an image"
BOX = np.array([1, 2, 3, 4], np.int32)


def frame(index: int, **outputs: Any) -> Any:
    image = np.zeros((4, 6, 3), np.uint8)
    return fake.stream_response("live", index=np.array([index], np.int32), box=BOX, frame=image, **outputs)


def segment(number: int, first: int, last: int) -> Any:
    return fake.stream_response(
        "live", segment=json.dumps({"segment": number, "first": first, "last": last, "duration": 1.0})
    )


def cleared(last: int) -> Any:
    return fake.stream_response("live", cleared=json.dumps({"last": last, "next": last + 1, "dropped": 0.5}))


def session(first: Request, **more: object) -> Any:
    """Return the first response of a server of API 1.1."""
    info = {"fps": "25", "width": 6, "height": 4, "frames": 1, "latency": 0.2, "format": "bgr", "token": "secret"}
    return fake.stream_response("live", session=json.dumps(info | more))


def answers(*responses: Any) -> fake.Script:
    """Return a script that sends these responses to the second request, and then a summary at the end."""

    def script(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        yield session(next(requests))
        next(requests)
        yield from responses
        for request in requests:
            if request.parameters["sequence_end"]:
                summary = {"frames": 0, "duration": 0, "segments": 2, "dropped": 0.5}
                yield fake.stream_response("live", summary=json.dumps(summary))
                return
        server.cancelled.wait(fake.SECONDS)

    return script


def test_the_first_request_says_what_is_not_as_by_default(client: AvatarClient, server: FakeServer) -> None:
    client.live(FACE, sample_rate=48_000, echo=True, new_sequence=True).cancel()
    (request,) = server.requests
    assert request.inputs.pop("face_file").tobytes() == FACE
    assert request.inputs == {"sample_rate": [48_000], "echo": "true", "new_sequence": [1]}


def test_a_prepared_avatar_is_sent_in_place_of_the_face(client: AvatarClient, server: FakeServer) -> None:
    client.live(FACE, avatar="prepared", format="jpeg", pads=(0, 1, 2, 3)).cancel()
    client.live(avatar="prepared").cancel()
    assert [request.inputs for request in server.requests] == [
        {"avatar": "prepared", "format": "jpeg"},
        {"avatar": "prepared"},
    ]
    with pytest.raises(TypeError, match="a face, or the id of a prepared avatar"):
        client.live()


def test_options_with_a_prepared_avatar_alone_reach_the_server_which_rejects_them(
    client: AvatarClient, server: FakeServer
) -> None:
    client.live(avatar="prepared", background="White", background_file=b"a background").cancel()
    (request,) = server.requests
    assert request.inputs.pop("background_file").tobytes() == b"a background"
    assert request.inputs == {"avatar": "prepared", "background": "White"}


def test_the_face_is_sent_if_the_avatar_is_not_known(client: AvatarClient, server: FakeServer) -> None:
    def forgetful(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        first = next(requests)
        if "avatar" in first.inputs:
            yield fake.error_response("404 avatar: no avatar is kept under this id")
            return
        yield session(first, avatar="new")
        server.cancelled.wait(fake.SECONDS)

    server.live = forgetful
    started = client.live(FACE, avatar="forgotten", pads=(0, 1, 2, 3), sample_rate=24_000)
    assert started.info.avatar == "new"
    assert "new" not in repr(started.info)
    started.cancel()
    known, unknown = server.requests
    assert set(known.inputs) == {"avatar", "sample_rate"}
    assert set(unknown.inputs) == {"face_file", "pads", "sample_rate"}
    with pytest.raises(InvalidRequest) as caught:
        client.live(avatar="forgotten")
    assert caught.value.code == 404


def test_the_sequence_of_the_server_is_used_after_the_start(client: AvatarClient, server: FakeServer) -> None:
    def renaming(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        yield session(next(requests), sequence_id="random", sample_rate=48_000)
        yield from (fake.final_response() for _ in requests)

    server.live = renaming
    started = client.live(FACE, new_sequence=True, sample_rate=48_000)
    assert (started.info.sequence_id, started.info.sample_rate) == ("random", 48_000)
    with pytest.raises(InvalidRequest, match="pcm: at least 960 samples expected, got 640"):
        started.send(np.zeros(640, np.int16))
    started.send(np.zeros(960, np.int16))
    started.end()
    with pytest.raises(ServerError, match="before the speech"):
        list(started)
    assert [request.parameters["sequence_id"] for request in server.requests[1:]] == ["random"] * 2


def test_the_calls_send_their_inputs(client: AvatarClient, server: FakeServer) -> None:
    server.live = answers(frame(0), cleared(0))
    started = client.live(FACE)
    started.clear()
    events = started.events()
    assert kinds([next(events), next(events)]) == [0, Cleared]
    started.clear(shown=0)
    started.end_segment()
    started.end_segment(np.zeros(10, np.int16))
    started.rest(25)
    started.rest()
    started.end()
    assert list(started.frames()) == []
    assert started.summary
    assert (started.summary.segments, started.summary.dropped) == (2, 0.5)
    sent = [
        {name: value.tolist() for name, value in request.inputs.items() if name not in ("token", "pcm")}
        for request in server.requests[1:-1]
    ]
    assert sent == [
        {"clear": [-1], "received": [-1]},
        {"clear": [0], "received": [0]},
        {"segment_end": [1], "received": [0]},
        {"segment_end": [1], "received": [0]},
        {"rest": [25], "received": [0]},
        {"rest": [-1], "received": [0]},
    ]
    assert server.requests[4].inputs["pcm"].shape == (10,)


def test_sound_and_its_time_come_with_the_frames(client: AvatarClient, server: FakeServer) -> None:
    sound = np.arange(640, dtype=np.int16)
    server.live = answers(
        frame(0, sound=sound, sound_time=np.array([1.5])), frame(1, sound=sound[:0], sound_time=np.array([-1.0]))
    )
    with client.live(FACE, echo=True) as started:
        started.send(np.zeros(640, np.int16))
        started.end()
        spoken, resting = started
    assert spoken.sound is not None
    assert spoken.sound.tolist() == sound.tolist()
    assert (spoken.sound_time, resting.sound_time) == (1.5, None)


def kinds(events: list[Any]) -> list[Any]:
    return [event.index if isinstance(event, Frame) else type(event) for event in events]


def test_events_come_in_their_order_though_responses_change_places(client: AvatarClient, server: FakeServer) -> None:
    server.live = answers(frame(1), segment(0, 0, 1), frame(0), segment(1, 2, 1), frame(3), frame(2), segment(2, 2, 3))
    with client.live(FACE) as started:
        started.end_segment()
        started.end()
        events = list(started.events())
    assert kinds(events) == [0, 1, SegmentEnd, SegmentEnd, 2, 3, SegmentEnd]
    assert [event.segment for event in events if isinstance(event, SegmentEnd)] == [0, 1, 2]


def test_nothing_of_the_dropped_speech_comes_after_the_answer(client: AvatarClient, server: FakeServer) -> None:
    # frames 2 to 5 were sent before the answer: 2 is missing, 4 and the end of a segment come after it
    server.live = answers(
        frame(0),
        frame(1),
        frame(3),
        frame(5),
        cleared(5),
        frame(4),
        segment(0, 0, 4),
        frame(7),
        frame(6),
        segment(1, 6, 7),
    )
    with client.live(FACE) as started:
        started.clear(shown=1)
        started.end()
        assert kinds(list(started.events())) == [0, 1, Cleared, 6, 7, SegmentEnd]


def test_a_session_that_rests_says_now_and_then_what_was_read(client: AvatarClient, server: FakeServer) -> None:
    server.live = answers(*(frame(index) for index in range(200)))
    with client.live(FACE) as started:
        started.rest()
        frames = iter(started)
        for _ in range(200):
            next(frames)
        started.end()
        assert list(frames) == []
    received = [int(request.inputs["received"][0]) for request in server.requests[2:]]
    assert received == [51, 103, 155, 199]  # every 2 s, and at the end
    assert [set(request.inputs) for request in server.requests[2:-1]] == [{"token", "received"}] * 3


@pytest.mark.parametrize("call", ["clear", "rest", "end_segment"])
def test_a_server_that_does_not_answer_a_call_is_unavailable(server: FakeServer, call: str) -> None:
    server.live = answers()
    with AvatarClient(server.address, timeout=1.0) as client:
        started = client.live(FACE)
        getattr(started, call)()
        with pytest.raises(Unavailable, match="did not answer"):
            list(started.events())


def test_events_without_blocking_end_when_nothing_was_received(client: AvatarClient, server: FakeServer) -> None:
    server.live = answers(frame(0))
    with client.live(FACE) as started:
        assert list(started.events(block=False)) == []
        started.rest()
        events: list[Any] = []
        while not events:
            events += started.events(block=False)
        assert kinds(events) == [0]
