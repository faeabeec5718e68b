"""Rendering a video with `for`: events, files, errors, retries and cancellation."""

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


def test_progress_and_chunks_are_followed_by_the_summary(client: AvatarClient) -> None:
    events = list(client.render(FACE, SPEECH))
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress == [Progress("queue", 0, None), Progress("encode", 0, 3), Progress("encode", 3, 3)]
    assert b"".join(event.data for event in events if isinstance(event, Chunk)) == FACE + SPEECH
    assert events[-1] == SUMMARY


def test_read_returns_the_whole_video(client: AvatarClient) -> None:
    assert client.render(FACE, SPEECH).read() == FACE + SPEECH


def test_options_are_sent_as_the_text_of_form_fields(client: AvatarClient, server: FakeServer, tmp_path: Path) -> None:
    face, background = tmp_path / "face.JPG", tmp_path / "background.png"
    face.write_bytes(FACE)
    background.write_bytes(b"background")
    client.render(
        str(face), SPEECH, face="left", background="White", background_file=background, pads=(0, 20, 0, 0),
        smooth=False, fps=29.97, resize_factor=2, model=None,
    ).read()  # fmt: skip
    (request,) = server.requests
    assert request.inputs.pop("face_file").tobytes() == FACE
    assert request.inputs.pop("audio_file").tobytes() == SPEECH
    assert request.inputs.pop("background_file").tobytes() == b"background"
    assert request.inputs == {
        **{"avatarFileType": "JPG", "background": "White", "face": "left", "pads": "0,20,0,0"},
        **{"smooth": "false", "fps": "29.97", "resize_factor": "2"},
    }


def test_an_unknown_option_is_a_type_error_at_once(client: AvatarClient, server: FakeServer) -> None:
    with pytest.raises(TypeError, match="bckground"):
        client.render(FACE, SPEECH, bckground="White")  # type: ignore[call-arg]
    assert not server.streams


def test_a_missing_file_raises_file_not_found(client: AvatarClient, server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.render(tmp_path / "none.png", SPEECH).read()
    assert not server.streams


def test_saving_writes_the_file_and_no_other(client: AvatarClient, tmp_path: Path) -> None:
    steps: list[Progress] = []
    assert client.render(FACE, SPEECH).save(tmp_path / "out.mp4", steps.append) == SUMMARY
    assert (tmp_path / "out.mp4").read_bytes() == FACE + SPEECH
    assert [step.stage for step in steps] == ["queue", "encode", "encode"]
    assert names(tmp_path) == ["out.mp4"]


def test_saving_to_a_device_does_not_replace_it(client: AvatarClient) -> None:
    client.render(FACE, SPEECH).save("/dev/null")
    assert Path("/dev/null").is_char_device()


def test_saving_to_a_symbolic_link_writes_its_target(client: AvatarClient, tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(tmp_path / "real.mp4")
    client.render(FACE, SPEECH).save(tmp_path / "link.mp4")
    assert (tmp_path / "link.mp4").is_symlink()
    assert (tmp_path / "real.mp4").read_bytes() == FACE + SPEECH


def script_of(*responses: Any) -> fake.Script:
    def script(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
        next(requests)
        yield from responses

    return script


def abort_midway(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    next(requests)
    yield fake.stream_response(video=b"half")
    context.abort(grpc.StatusCode.UNAVAILABLE, "the server has stopped")


@pytest.mark.parametrize(
    "script",
    [
        script_of(fake.stream_response(video=b"half")),
        script_of(fake.stream_response(video=b"half"), fake.error_response("500 gone")),
        abort_midway,
    ],
    ids=["ends early", "error", "connection lost"],
)
def test_an_incomplete_video_does_not_replace_the_old_file(
    client: AvatarClient, server: FakeServer, tmp_path: Path, script: fake.Script
) -> None:
    server.avatar = script
    (tmp_path / "out.mp4").write_bytes(b"an old video")
    with pytest.raises((ServerError, Unavailable)):
        client.render(FACE, SPEECH).save(tmp_path / "out.mp4")
    assert names(tmp_path) == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"an old video"
    assert server.streams == 1  # not sent again after the first response


def test_an_error_in_the_callback_cancels_the_call_and_leaves_no_file(
    client: AvatarClient, server: FakeServer, tmp_path: Path
) -> None:
    server.avatar = fake.waiting_avatar

    def fail(step: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.render(FACE, SPEECH).save(tmp_path / "out.mp4", fail)
    assert server.cancelled.wait(fake.SECONDS)
    assert names(tmp_path) == []


def test_nothing_is_sent_if_the_file_cannot_be_written(
    client: AvatarClient, server: FakeServer, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"out\.mp4"):
        client.render(FACE, SPEECH).save(tmp_path / "nowhere" / "out.mp4")
    with pytest.raises(IsADirectoryError):
        client.render(FACE, SPEECH).save(tmp_path)
    assert not server.streams


def test_a_video_that_was_partly_read_cannot_be_saved(client: AvatarClient, tmp_path: Path) -> None:
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
        ("503 limit of 2 running videos reached", Unavailable, 503, "limit of 2 running videos reached"),
        ("500 internal error", ServerError, 500, "internal error"),
        ("Request for unknown model: 'avatar'", ServerError, 500, "Request for unknown model: 'avatar'"),
    ],
)
def test_an_error_of_the_model_raises_the_class_of_its_status(
    client: AvatarClient, server: FakeServer, text: str, kind: type[Exception], code: int, message: str
) -> None:
    server.avatar = script_of(fake.error_response(text))
    with pytest.raises(kind) as caught:
        client.render(FACE, SPEECH).read()
    assert (caught.value.code, caught.value.message, str(caught.value)) == (code, message, message)  # type: ignore[attr-defined]
    assert server.streams == 1


def test_a_busy_server_suggests_a_delay_for_the_retry(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = script_of(fake.error_response("503 busy"))
    with pytest.raises(Unavailable) as caught:
        client.render(FACE, SPEECH).read()
    assert caught.value.retry_after > 0


def test_an_invalid_summary_is_a_server_error(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = script_of(fake.stream_response(summary='{"frames": "many"}'))
    with pytest.raises(ServerError, match="Summary"):
        client.render(FACE, SPEECH).read()


def test_a_request_that_was_not_delivered_is_sent_again(client: AvatarClient, server: FakeServer) -> None:
    server.failures.extend([grpc.StatusCode.UNAVAILABLE] * 2)
    assert client.render(FACE, SPEECH).read() == FACE + SPEECH
    assert server.streams == 3


def test_the_number_of_retries_is_limited(client: AvatarClient, server: FakeServer) -> None:
    server.failures.extend([grpc.StatusCode.UNAVAILABLE] * 9)
    with pytest.raises(Unavailable, match="cannot be reached"):
        client.render(FACE, SPEECH).read()
    assert server.streams == 3


@pytest.mark.parametrize("status", ["INTERNAL", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"])
def test_other_errors_are_not_retried(client: AvatarClient, server: FakeServer, status: str) -> None:
    server.failures.append(grpc.StatusCode[status])
    with pytest.raises((ServerError, InvalidRequest, Unavailable)):
        client.render(FACE, SPEECH).read()
    assert server.streams == 1


def test_cancelling_from_another_thread_cancels_the_call(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    rendering = client.render(FACE, SPEECH)
    assert next(rendering) == Progress("encode", 1, 100)
    threading.Timer(0.1, rendering.cancel).start()
    with pytest.raises(Cancelled):
        list(rendering)
    assert server.cancelled.wait(fake.SECONDS)
    with pytest.raises(Cancelled):
        next(rendering)


def test_leaving_the_block_cancels_the_call(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    with client.render(FACE, SPEECH) as rendering:
        next(rendering)
    assert server.cancelled.wait(fake.SECONDS)


def test_garbage_collection_of_a_rendering_cancels_its_call(client: AvatarClient, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    for _ in client.render(FACE, SPEECH):
        break
    gc.collect()
    assert server.cancelled.wait(fake.SECONDS)


def test_closing_the_client_cancels_running_calls(server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    with AvatarClient(server.address) as client:
        rendering = client.render(FACE, SPEECH)
        next(rendering)
    assert server.cancelled.wait(fake.SECONDS)
    with pytest.raises(Cancelled):
        list(rendering)
    with pytest.raises(Cancelled):
        client.render(FACE, SPEECH).read()


def test_a_rendering_cancelled_before_its_start_sends_nothing(client: AvatarClient, server: FakeServer) -> None:
    rendering = client.render(FACE, SPEECH)
    rendering.cancel()
    with pytest.raises(Cancelled):
        next(rendering)
    assert not server.streams


def test_a_complete_video_is_not_cancelled_afterwards(client: AvatarClient, server: FakeServer) -> None:
    with client.render(FACE, SPEECH) as rendering:
        events = list(rendering)
    assert events[-1] == rendering.summary
    assert list(rendering) == []
    assert not server.cancelled.is_set()


def test_a_server_that_stops_responding_is_unavailable(server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    with AvatarClient(server.address, timeout=1.0) as client, pytest.raises(Unavailable, match="did not answer"):
        client.render(FACE, SPEECH).read()
    assert server.cancelled.wait(fake.SECONDS)


def test_a_slow_reader_is_not_timed_out(server: FakeServer) -> None:
    with AvatarClient(server.address, timeout=1.0) as client:
        rendering = client.render(FACE, SPEECH)
        first = next(rendering)
        threading.Event().wait(2.0)
        assert isinstance(first, Progress) and list(rendering)[-1] == SUMMARY


def test_concurrent_videos_do_not_mix(client: AvatarClient, server: FakeServer) -> None:
    results: dict[int, bytes] = {}

    def render(n: int) -> None:
        results[n] = client.render(FACE + bytes([n]), SPEECH).read()

    threads = [threading.Thread(target=render, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: FACE + bytes([n]) + SPEECH for n in range(6)}


def test_an_unreachable_server_is_unavailable() -> None:
    with AvatarClient("127.0.0.1:1", retries=0) as client:
        assert not client.is_ready()
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 cannot be reached"):
            client.render(FACE, SPEECH).read()


def test_readiness_is_that_of_the_server(client: AvatarClient, server: FakeServer) -> None:
    assert client.is_ready()
    assert client.is_ready("avatar", "live")
    assert not client.is_ready("no such model")
    with pytest.raises(AvatarClientError):
        client.api_version()  # this server has none
    server.ready = False
    assert not client.is_ready()
    client.close()
    assert not client.is_ready()


@pytest.mark.parametrize("wrong", [{"address": "http://x:1"}, {"address": ""}, {"timeout": 0}, {"retries": -1}])
def test_invalid_arguments_of_the_client_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        AvatarClient(**({"address": "127.0.0.1:1"} | wrong))
