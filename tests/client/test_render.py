"""A whole video through `for`, and what can go wrong with it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
import pytest

from avatar_client import (
    AvatarClient,
    AvatarClientError,
    Cancelled,
    Chunk,
    InvalidRequest,
    Progress,
    ServerError,
    Summary,
    Unavailable,
)
from tests.client import fake_server as fake
from tests.client.fake_server import FakeServer, Request

FACE, SPEECH = bytes(range(256)) * 10, b"RIFF" * 300
SUMMARY = Summary(3, Fraction(30000, 1001), 0.1, 1, {"detect": 0.5, "encode": 0.25}, ("s3fd",), "mp4")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_progress_and_chunks_come_and_then_the_summary(client: AvatarClient) -> None:
    events = list(client.render(FACE, SPEECH))
    told = [event for event in events if isinstance(event, Progress)]
    assert told == [Progress("queue", 0, None), Progress("encode", 0, 3), Progress("encode", 3, 3)]
    assert b"".join(event.data for event in events if isinstance(event, Chunk)) == FACE + SPEECH
    assert events[-1] == SUMMARY


def test_the_whole_video_is_read_at_once(client: AvatarClient) -> None:
    assert client.render(FACE, SPEECH).read() == FACE + SPEECH


def test_options_reach_the_server_as_the_forms_text(client: AvatarClient, server: FakeServer, tmp_path: Path) -> None:
    face, backdrop = tmp_path / "face.JPG", tmp_path / "behind.png"
    face.write_bytes(FACE)
    backdrop.write_bytes(b"behind")
    client.render(
        str(face), SPEECH, face="left", background="White", background_file=backdrop, pads=(0, 20, 0, 0), smooth=False,
        fps=29.97, resize_factor=2, model=None,
    ).read()  # fmt: skip
    (request,) = server.requests
    assert request.inputs.pop("face_file").tobytes() == FACE
    assert request.inputs.pop("audio_file").tobytes() == SPEECH
    assert request.inputs.pop("background_file").tobytes() == b"behind"
    assert request.inputs == {
        **{"avatarFileType": "JPG", "background": "White", "face": "left", "pads": "0,20,0,0"},
        **{"smooth": "false", "fps": "29.97", "resize_factor": "2"},
    }


def test_an_unknown_option_is_a_type_error_at_once(client: AvatarClient, server: FakeServer) -> None:
    with pytest.raises(TypeError, match="bckground"):
        client.render(FACE, SPEECH, bckground="White")  # type: ignore[call-arg]
    assert not server.streams


def test_a_file_that_is_not_there_is_told_as_ever(client: AvatarClient, server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.render(tmp_path / "none.png", SPEECH).read()
    assert not server.streams


def test_saving_writes_the_file_and_nothing_beside_it(client: AvatarClient, tmp_path: Path) -> None:
    steps: list[Progress] = []
    assert client.render(FACE, SPEECH).save(tmp_path / "out.mp4", steps.append) == SUMMARY
    assert (tmp_path / "out.mp4").read_bytes() == FACE + SPEECH
    assert [step.stage for step in steps] == ["queue", "encode", "encode"]
    assert names(tmp_path) == ["out.mp4"]


def test_saving_to_a_pipe_or_device_leaves_it_what_it_is(client: AvatarClient) -> None:
    client.render(FACE, SPEECH).save("/dev/null")
    assert Path("/dev/null").is_char_device()


def test_saving_through_a_symbolic_link_writes_what_it_means(client: AvatarClient, tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(tmp_path / "real.mp4")
    client.render(FACE, SPEECH).save(tmp_path / "link.mp4")
    assert (tmp_path / "link.mp4").is_symlink()
    assert (tmp_path / "real.mp4").read_bytes() == FACE + SPEECH


def breaks(*answers: Any) -> fake.Script:
    def script(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        next(requests)
        yield from answers

    return script


def dies(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    next(requests)
    yield fake.answer(video=b"half")
    context.abort(grpc.StatusCode.UNAVAILABLE, "the server died")


@pytest.mark.parametrize(
    "script",
    [breaks(fake.answer(video=b"half")), breaks(fake.answer(video=b"half"), fake.problem("500 gone")), dies],
    ids=["ends early", "fails", "dies"],
)
def test_a_video_that_breaks_off_leaves_what_was_there_before(
    client: AvatarClient, server: FakeServer, tmp_path: Path, script: fake.Script
) -> None:
    server.avatar = script
    (tmp_path / "out.mp4").write_bytes(b"of yesterday")
    with pytest.raises((ServerError, Unavailable)):
        client.render(FACE, SPEECH).save(tmp_path / "out.mp4")
    assert names(tmp_path) == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"of yesterday"
    assert server.streams == 1  # something had come: it is not for us to begin anew


def test_an_error_of_the_callers_own_cancels_and_leaves_nothing(
    client: AvatarClient, server: FakeServer, tmp_path: Path
) -> None:
    server.avatar = fake.waiting_avatar

    def fail(step: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.render(FACE, SPEECH).save(tmp_path / "out.mp4", fail)
    assert server.cancelled.wait(fake.SECONDS)
    assert names(tmp_path) == []


def test_where_nothing_can_be_written_nothing_is_sent(client: AvatarClient, server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"out\.mp4"):
        client.render(FACE, SPEECH).save(tmp_path / "nowhere" / "out.mp4")
    with pytest.raises(IsADirectoryError):
        client.render(FACE, SPEECH).save(tmp_path)
    assert not server.streams


def test_a_video_of_which_something_was_taken_is_not_saved_as_whole(client: AvatarClient, tmp_path: Path) -> None:
    rendering = client.render(FACE, SPEECH)
    next(rendering)
    with pytest.raises(RuntimeError, match="already taken"):
        rendering.save(tmp_path / "out.mp4")
    assert names(tmp_path) == []
    rendering.close()


@pytest.mark.parametrize(
    ("text", "kind", "code", "message"),
    [
        (
            "400 face_file: not an image that can be read",
            InvalidRequest,
            400,
            "face_file: not an image that can be read",
        ),
        ("413 audio_file: too long", InvalidRequest, 413, "audio_file: too long"),
        ("503 as many videos as may be are being made", Unavailable, 503, "as many videos as may be are being made"),
        ("500 internal error", ServerError, 500, "internal error"),
        ("Request for unknown model: 'avatar'", ServerError, 500, "Request for unknown model: 'avatar'"),
    ],
)
def test_an_error_of_the_model_is_an_error_of_its_class(
    client: AvatarClient, server: FakeServer, text: str, kind: type[Exception], code: int, message: str
) -> None:
    server.avatar = breaks(fake.problem(text))
    with pytest.raises(kind) as caught:
        client.render(FACE, SPEECH).read()
    assert (caught.value.code, caught.value.message, str(caught.value)) == (code, message, message)  # type: ignore[attr-defined]
    assert server.streams == 1


def test_busy_says_when_to_come_back(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = breaks(fake.problem("503 busy"))
    with pytest.raises(Unavailable) as caught:
        client.render(FACE, SPEECH).read()
    assert caught.value.retry_after > 0


def test_a_summary_that_cannot_be_read_is_a_failure(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = breaks(fake.answer(summary='{"frames": "many"}'))
    with pytest.raises(ServerError, match="Summary"):
        client.render(FACE, SPEECH).read()


def test_what_could_not_be_delivered_is_sent_again(client: AvatarClient, server: FakeServer) -> None:
    server.fail.extend([grpc.StatusCode.UNAVAILABLE] * 2)
    assert client.render(FACE, SPEECH).read() == FACE + SPEECH
    assert server.streams == 3


def test_it_is_not_sent_again_and_again(client: AvatarClient, server: FakeServer) -> None:
    server.fail.extend([grpc.StatusCode.UNAVAILABLE] * 9)
    with pytest.raises(Unavailable, match="cannot be reached"):
        client.render(FACE, SPEECH).read()
    assert server.streams == 3


@pytest.mark.parametrize("status", ["INTERNAL", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"])
def test_no_other_error_is_tried_again(client: AvatarClient, server: FakeServer, status: str) -> None:
    server.fail.append(grpc.StatusCode[status])
    with pytest.raises((ServerError, InvalidRequest, Unavailable)):
        client.render(FACE, SPEECH).read()
    assert server.streams == 1


def test_cancelling_from_another_thread_reaches_the_server(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    rendering = client.render(FACE, SPEECH)
    assert next(rendering) == Progress("encode", 1, 100)
    threading.Timer(0.1, rendering.cancel).start()
    with pytest.raises(Cancelled):
        list(rendering)
    assert server.cancelled.wait(fake.SECONDS)
    with pytest.raises(Cancelled):
        next(rendering)


def test_leaving_the_block_cancels_at_the_server(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    with client.render(FACE, SPEECH) as rendering:
        next(rendering)
    assert server.cancelled.wait(fake.SECONDS)


def test_letting_go_of_it_cancels_at_the_server(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    for _ in client.render(FACE, SPEECH):
        break
    gc.collect()
    assert server.cancelled.wait(fake.SECONDS)


def test_closing_the_client_cancels_what_is_under_way(server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    with AvatarClient(server.address) as client:
        rendering = client.render(FACE, SPEECH)
        next(rendering)
    assert server.cancelled.wait(fake.SECONDS)
    with pytest.raises(Cancelled):
        list(rendering)
    with pytest.raises(Cancelled):
        client.render(FACE, SPEECH).read()


def test_cancelled_before_it_began_nothing_is_sent(client: AvatarClient, server: FakeServer) -> None:
    rendering = client.render(FACE, SPEECH)
    rendering.cancel()
    with pytest.raises(Cancelled):
        next(rendering)
    assert not server.streams


def test_a_whole_video_is_not_cancelled_afterwards(client: AvatarClient, server: FakeServer) -> None:
    with client.render(FACE, SPEECH) as rendering:
        events = list(rendering)
    assert events[-1] == rendering.summary
    assert list(rendering) == []
    assert not server.cancelled.is_set()


def test_a_server_that_falls_silent_is_given_up(server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    with AvatarClient(server.address, timeout=0.5) as client, pytest.raises(Unavailable, match="did not answer"):
        client.render(FACE, SPEECH).read()
    assert server.cancelled.wait(fake.SECONDS)


def test_whoever_takes_the_video_slowly_is_not_given_up(server: FakeServer) -> None:
    with AvatarClient(server.address, timeout=0.2) as client:
        rendering = client.render(FACE, SPEECH)
        first = next(rendering)
        threading.Event().wait(0.5)
        assert isinstance(first, Progress) and list(rendering)[-1] == SUMMARY


def test_videos_at_the_same_time_do_not_touch_each_other(client: AvatarClient, server: FakeServer) -> None:
    results: dict[int, bytes] = {}

    def one(n: int) -> None:
        results[n] = client.render(FACE + bytes([n]), SPEECH).read()

    threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: FACE + bytes([n]) + SPEECH for n in range(6)}


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with AvatarClient("127.0.0.1:1", retries=0) as client:
        assert not client.is_ready()
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 cannot be reached"):
            client.render(FACE, SPEECH).read()


def test_ready_is_what_the_server_says(client: AvatarClient, server: FakeServer) -> None:
    assert client.is_ready()
    assert client.is_ready("avatar", "live")
    assert not client.is_ready("no such model")
    with pytest.raises(AvatarClientError):
        client.api_version()  # which this server does not know
    server.ready = False
    assert not client.is_ready()
    client.close()
    assert not client.is_ready()


@pytest.mark.parametrize("wrong", [{"address": "http://x:1"}, {"address": ""}, {"timeout": 0}, {"retries": -1}])
def test_values_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        AvatarClient(**({"address": "127.0.0.1:1"} | wrong))
