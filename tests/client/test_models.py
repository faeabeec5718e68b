"""The single models: arrays are split into calls and their results joined, through shared memory and gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from avatar_client import AvatarClient, Cancelled, InvalidRequest, ServerError, Unavailable, _models
from tests.client import fake_server as fake
from tests.client.fake_server import FakeServer

RANDOM = np.random.default_rng(0)
FRAMES = RANDOM.integers(0, 256, (70, 120, 160, 3), np.uint8)
X1, Y1 = RANDOM.integers(0, 60, 70), RANDOM.integers(0, 40, 70)
BOXES = np.stack((X1, Y1, X1 + RANDOM.integers(1, 90, 70), Y1 + RANDOM.integers(1, 70, 70)), axis=1).astype(np.int32)
WINDOWS = RANDOM.integers(0, 100, (70, 80, 16)).astype(np.float32)
MOUTHS = RANDOM.integers(0, 256, (70, 96, 96, 3), np.uint8)


@pytest.fixture(params=[True, False], ids=["memory", "gRPC"])
def client(request: pytest.FixtureRequest, server: FakeServer) -> Iterator[AvatarClient]:
    with AvatarClient(server.address, timeout=30, shared_memory=request.param) as client:
        yield client


def counts(server: FakeServer, name: str) -> list[int]:
    return [len(call.inputs[name]) for call in server.calls]


def test_faces_are_detected_in_calls_of_four_frames(client: AvatarClient, server: FakeServer) -> None:
    boxes, scores = client.detect_faces(FRAMES[:10])
    assert (boxes.dtype, boxes.shape, scores.dtype, scores.shape) == ("f4", (10, 16, 4), "f4", (10, 16))
    expected = fake.detect(None, FRAMES[:4])
    np.testing.assert_array_equal(boxes[:4], expected["boxes"])
    np.testing.assert_array_equal(scores[:4], expected["scores"])
    np.testing.assert_array_equal(boxes[:, 0, 0], FRAMES[:10, 0, 0, 0])
    assert counts(server, "frames") == [4, 4, 2]


def test_speech_is_converted_to_windows(client: AvatarClient) -> None:
    windows = client.mel(np.zeros(48_000, np.float32), fps=30)
    assert (windows.dtype, windows.shape) == ("f4", (90, 80, 16))
    assert len(client.mel(np.zeros(48_000, np.float32))) == 75


@pytest.mark.parametrize(("frames", "boxes"), [(70, 70), (1, 1), (1, 70), (70, 1)])
def test_mouths_are_generated_in_calls_of_32_as_from_whole_frames(
    client: AvatarClient, server: FakeServer, frames: int, boxes: int
) -> None:
    expected = [
        fake.lipsync(None, FRAMES[n % frames][None], BOXES[n % boxes][None], WINDOWS[n][None])["mouths"][0]
        for n in range(70)
    ]
    mouths = client.lipsync(FRAMES[:frames], BOXES[:boxes], WINDOWS)
    np.testing.assert_array_equal(mouths, expected)
    assert counts(server, "mel") == [32, 32, 6]
    assert {call.model for call in server.calls} == {"lipsync"}


@pytest.mark.parametrize(("frames", "boxes"), [(70, 70), (1, 1), (1, 70), (70, 1)])
def test_mouths_are_pasted_as_into_whole_frames(client: AvatarClient, frames: int, boxes: int) -> None:
    source = FRAMES[:frames].copy()
    expected = [
        fake.paste(None, FRAMES[n % frames][None], BOXES[n % boxes][None], MOUTHS[n][None])["frames"][0]
        for n in range(70)
    ]
    np.testing.assert_array_equal(client.paste(source, BOXES[:boxes], MOUTHS), expected)
    np.testing.assert_array_equal(source, FRAMES[:frames])


def test_large_frames_are_pasted_in_calls_whose_answers_the_server_allows(
    client: AvatarClient, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_models, "MAX_ANSWER_BYTES", 30 * FRAMES[0].nbytes)
    client.paste(FRAMES[:1], BOXES[:1], MOUTHS)
    assert counts(server, "mouths") == [30, 30, 10]


def test_only_the_rectangle_around_the_boxes_is_sent(client: AvatarClient, server: FakeServer) -> None:
    boxes = np.array([[10, 20, 60, 50], [30, 5, 70, 45]], np.int32)
    client.lipsync(FRAMES[:2], boxes, WINDOWS[:2])
    client.paste(FRAMES[:2], boxes, MOUTHS[:2])
    assert [call.inputs["frames"].shape for call in server.calls] == [(2, 45, 60, 3)] * 2


def test_the_gan_generator_is_another_model(client: AvatarClient, server: FakeServer) -> None:
    client.lipsync(FRAMES[:1], BOXES[:1], WINDOWS[:1], model="wav2lip_gan")
    assert server.calls[0].model == "lipsync_gan"
    with pytest.raises(ValueError, match="wav2lip, wav2lip_gan"):
        client.lipsync(FRAMES[:1], BOXES[:1], WINDOWS[:1], model="wave")  # type: ignore[arg-type]


def test_empty_input_gives_empty_output_without_a_call(client: AvatarClient, server: FakeServer) -> None:
    boxes, scores = client.detect_faces(FRAMES[:0])
    assert (boxes.shape, scores.shape) == ((0, 16, 4), (0, 16))
    assert client.lipsync(FRAMES[:1], BOXES[:1], WINDOWS[:0]).shape == (0, 96, 96, 3)
    assert client.paste(FRAMES[:1], BOXES[:1], MOUTHS[:0]).shape == (0, 120, 160, 3)
    assert not server.calls


def test_arrays_of_any_memory_order_are_accepted(client: AvatarClient) -> None:
    expected = client.lipsync(FRAMES[:8], BOXES[:8], WINDOWS[:8])
    reordered = np.asfortranarray(FRAMES[:8])
    np.testing.assert_array_equal(client.lipsync(reordered, BOXES[:8], np.asfortranarray(WINDOWS[:8])), expected)
    np.testing.assert_array_equal(client.detect_faces(reordered)[0], client.detect_faces(FRAMES[:8])[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.detect_faces(FRAMES[0]), "frames: UINT8"),
        (lambda c: c.detect_faces(FRAMES.astype(np.float32)), "frames: UINT8"),
        (lambda c: c.detect_faces(FRAMES[:1].tolist()), "frames: UINT8"),
        (lambda c: c.mel(np.zeros(16_000)), "audio: FP32"),
        (lambda c: c.mel(np.zeros((16_000, 2), np.float32)), "audio: FP32"),
        (lambda c: c.lipsync(FRAMES, BOXES.astype(np.int64), WINDOWS), "boxes: INT32"),
        (lambda c: c.lipsync(FRAMES, BOXES, WINDOWS[:, :40]), "mel: FP32"),
        (lambda c: c.lipsync(FRAMES[:3], BOXES, WINDOWS), "frames: 1 or 70 expected, got 3"),
        (lambda c: c.lipsync(FRAMES, BOXES[:3], WINDOWS), "boxes: 1 or 70 expected, got 3"),
        (lambda c: c.lipsync(FRAMES[:1], np.array([[-1, 0, 9, 9]], np.int32), WINDOWS), r"boxes\[0\]: .* outside"),
        (lambda c: c.lipsync(FRAMES[:1], np.array([[0, 0, 161, 9]], np.int32), WINDOWS), r"outside the 160x120"),
        (lambda c: c.paste(FRAMES[:1], np.array([[9, 9, 9, 20]], np.int32), MOUTHS), r"boxes\[0\]: .* empty"),
        (lambda c: c.paste(FRAMES, BOXES, MOUTHS[:, :90]), "mouths: UINT8"),
    ],
)
def test_invalid_arrays_are_rejected_before_they_are_sent(
    client: AvatarClient, server: FakeServer, call: Callable[[AvatarClient], Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        call(client)
    assert caught.value.code == 400
    assert not server.calls


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", InvalidRequest),
        ("DEADLINE_EXCEEDED", Unavailable),
        ("NOT_FOUND", ServerError),
        ("INTERNAL", ServerError),
        ("RESOURCE_EXHAUSTED", ServerError),
    ],
)
def test_an_error_raises_the_class_of_its_status_and_is_not_retried(
    client: AvatarClient, server: FakeServer, status: str, kind: type[Exception]
) -> None:
    server.failures.append(grpc.StatusCode[status])
    with pytest.raises(kind):
        client.mel(np.zeros(1600, np.float32))  # small: needs no shared memory
    assert not server.calls


def test_a_request_that_was_not_delivered_is_sent_again(client: AvatarClient, server: FakeServer) -> None:
    server.failures.extend([grpc.StatusCode.UNAVAILABLE] * 2)
    assert len(client.mel(np.zeros(1600, np.float32))) == 2
    server.failures.extend([grpc.StatusCode.UNAVAILABLE] * 3)
    with pytest.raises(Unavailable, match="cannot be reached"):
        client.mel(np.zeros(1600, np.float32))
    assert len(server.calls) == 1


def test_all_retries_together_stay_within_the_timeout(server: FakeServer) -> None:
    server.failures.extend([grpc.StatusCode.UNAVAILABLE] * 99)
    with AvatarClient(server.address, timeout=1, retries=99) as client, pytest.raises(Unavailable):
        client.mel(np.zeros(1600, np.float32))
    assert len(server.failures) > 90


def test_a_closed_client_raises_cancelled(client: AvatarClient) -> None:
    client.close()
    client.close()
    with pytest.raises(Cancelled, match="closed"):
        client.detect_faces(FRAMES[:1])
