"""The model `live`: sessions that receive speech in pieces, on a live server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from avatar.settings import LiveSettings
from lipsync.face_crop import paste
from lipsync.mel import mel_spectrogram
from lipsync.mel_stream import LOOKAHEAD
from lipsync.mel_windows import mel_windows
from lipsync.tensors import SEQUENCE_IDLE_SECONDS
from tests.support.media import write_video
from tests.support.triton_calls import caller
from tests.support.triton_server import Served
from tests.support.triton_streams import LiveConnection, Responses

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SPEECH, _ = soundfile.read(SAMPLES / "speech.wav", dtype="float32", start=16_000, frames=9600)  # 0.6 s
PIECE = 640  # samples; 40 ms
_sequences = count(1000)


@pytest.fixture(scope="module")
def face(samples: Path) -> bytes:
    """The face of the samples at half of its width and height."""
    image = cv2.imread(str(samples / "face.png"))[::2, ::2]
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture
def connection(served: Served) -> Iterator[LiveConnection]:
    connection = LiveConnection(served.stub, next(_sequences))
    yield connection
    connection.close()


def pieces(speech: np.ndarray, size: int = PIECE) -> list[np.ndarray]:
    return [speech[at : at + size] for at in range(0, len(speech), size)]


def run_session(
    connection: LiveConnection, face: bytes, speech: np.ndarray, size: int = PIECE, **options: str
) -> Responses:
    """Send a whole session without pauses, and return its responses."""
    connection.send(start=True, face_file=face, **options)  # type: ignore[arg-type]
    sent = pieces(speech, size)
    for n, piece in enumerate(sent):
        connection.send(audio=piece, end=n == len(sent) - 1)
    return connection.receive(1 + len(sent))


def test_the_frames_equal_those_of_the_whole_speech_followed_by_silence(
    served: Served, connection: LiveConnection, face: bytes
) -> None:
    responses = run_session(connection, face, SPEECH)
    assert responses.error == ""
    assert responses.session
    assert responses.summary
    assert (responses.session["fps"], responses.session["width"], responses.session["height"]) == ("25", 320, 240)
    windows = mel_windows(mel_spectrogram(np.concatenate((SPEECH, np.zeros(16_000, np.float32)))), 25.0)
    frames = [responses.frames[n] for n in range(responses.summary["frames"])]
    assert len(frames) == len(responses.frames)
    image = cv2.imdecode(np.frombuffer(face, np.uint8), cv2.IMREAD_COLOR)[None].astype(np.uint8)
    boxes = np.stack([frame["box"] for frame in frames])
    with caller(served.triton.grpc_address) as call:
        inputs = {"frames": image, "boxes": boxes, "mel": windows[: len(frames)]}
        mouths = call("lipsync", inputs)["mouths"]
    expected = paste(image, boxes, mouths)
    shown = np.stack([frame["frame"] for frame in frames])
    np.testing.assert_allclose(shown.astype(int), expected, atol=1)  # a batch of another size may round differently
    assert np.abs(shown[8].astype(int) - shown[-1]).max() > 20  # the mouth moves


def test_a_frame_is_sent_once_the_speech_of_its_window_has_arrived_and_not_before(
    connection: LiveConnection, face: bytes
) -> None:
    connection.send(start=True, face_file=face)
    connection.receive()
    received = LOOKAHEAD - 320
    connection.send(audio=SPEECH[:received])
    assert connection.receive().frames == {}
    connection.send(audio=SPEECH[received : LOOKAHEAD + 1])
    assert list(connection.receive().frames) == [0]
    connection.send(audio=SPEECH[LOOKAHEAD + 1 :], end=True)
    assert min(connection.receive().frames) == 1


def test_the_end_of_speech_closes_the_mouth_and_the_session(connection: LiveConnection, face: bytes) -> None:
    connection.send(start=True, face_file=face)
    connection.send(end=True, pcm=np.zeros(0, np.int16))
    silent = connection.receive(2)
    assert silent.summary
    assert (silent.summary["frames"], silent.summary["duration"]) == (1, 0.0)
    again = run_session(connection, face, SPEECH)  # the same id: a new session
    assert again.summary
    assert again.summary["duration"] == pytest.approx(0.6)
    last = again.frames[max(again.frames)]["frame"].astype(int)
    np.testing.assert_allclose(last, silent.frames[0]["frame"], atol=1)
    connection.send(audio=SPEECH)
    # by Triton's scheduler, or by the model where the scheduler has not given the slot back yet
    assert re.search("must specify the START flag|no such session", connection.receive().error)


@pytest.mark.parametrize("size", [320, 333, 9600])
def test_pieces_of_any_size_and_integers_give_the_same_frames(
    served: Served, connection: LiveConnection, face: bytes, size: int
) -> None:
    integers = (SPEECH * 32767).astype(np.int16)
    floats = integers.astype(np.float32) / 32768
    whole = run_session(connection, face, floats)
    other = LiveConnection(served.stub, next(_sequences))
    other.send(start=True, face_file=face)
    sent = pieces(integers, size)
    for n, piece in enumerate(sent):
        other.send(pcm=piece, end=n == len(sent) - 1)  # the last one may be short
    responses = other.receive(1 + len(sent))
    assert responses.error == ""
    assert responses.frames.keys() == whole.frames.keys()
    for n, frame in responses.frames.items():
        np.testing.assert_allclose(frame["frame"].astype(int), whole.frames[n]["frame"], atol=1)
    other.close()


def test_jpeg_and_mouth_format_show_the_same_frames_as_bgr(served: Served, face: bytes) -> None:
    sessions = {}
    for frame_format in ("bgr", "jpeg", "mouth"):
        connection = LiveConnection(served.stub, next(_sequences))
        sessions[frame_format] = run_session(connection, face, SPEECH, format=frame_format)
        assert sessions[frame_format].error == ""
        connection.close()
    for n, whole in sessions["bgr"].frames.items():
        x1, y1, x2, y2 = whole["box"]
        np.testing.assert_allclose(
            sessions["mouth"].frames[n]["frame"].astype(int), whole["frame"][y1:y2, x1:x2], atol=1
        )
        jpeg = cv2.imdecode(sessions["jpeg"].frames[n]["jpeg"], cv2.IMREAD_COLOR)
        assert np.abs(jpeg.astype(int) - whole["frame"]).mean() < 3


def test_the_frames_of_a_short_video_are_repeated_in_the_order_of_the_option(
    connection: LiveConnection, samples: Path, tmp_path: Path
) -> None:
    image = cv2.imread(str(samples / "face.png"))[::2, ::2]
    moved = np.stack([np.roll(image, 4 * n, axis=1) for n in range(4)])
    clip = write_video(tmp_path / "clip.mp4", moved, fps="12.5").read_bytes()
    responses = run_session(connection, clip, SPEECH, length="bounce", blend="feather", smooth="false")
    assert responses.session
    assert (responses.session["fps"], responses.session["frames"]) == ("25/2", 4)
    boxes = [tuple(responses.frames[n]["box"]) for n in sorted(responses.frames)]
    assert len(set(boxes[:4])) == 4
    assert boxes[4:7] == [boxes[2], boxes[1], boxes[0]]


def test_frames_without_a_face_are_unchanged_with_no_face_keep(connection: LiveConnection) -> None:
    gray = np.full((240, 320, 3), 128, np.uint8)
    blank = cv2.imencode(".png", gray)[1].tobytes()
    responses = run_session(connection, blank, SPEECH, no_face="keep")
    assert responses.summary
    assert responses.summary["without_face"] == responses.summary["frames"] == len(responses.frames)
    np.testing.assert_array_equal(responses.frames[0]["frame"], gray)
    assert tuple(responses.frames[0]["box"]) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"face_file": b"garbage"}, "400 face_file: not an image that can be read"),
        ({}, "400 face_file: the field is missing"),
        ({"face_file": "face", "format": "gif"}, "400 format: one of bgr, jpeg, mouth expected, got 'gif'"),
        ({"face_file": "face", "pads": "x"}, "400 pads: expected four whole numbers"),
        (
            {"face_file": "face", "background": "Transparent"},
            "400 background: Transparent is not supported in live sessions",
        ),
    ],
)
def test_an_invalid_start_is_rejected_with_the_field_and_the_reason(
    connection: LiveConnection, face: bytes, inputs: dict[str, bytes | str], reason: str
) -> None:
    options = {name: face if value == "face" else value for name, value in inputs.items()}
    connection.send(start=True, **options)  # type: ignore[arg-type]
    assert connection.receive().error.startswith(reason)
    connection.send(audio=SPEECH)
    assert connection.receive().error.startswith(reason)  # the same again


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({}, "400 audio: send audio or pcm"),
        ({"audio": SPEECH, "pcm": np.zeros(640, np.int16)}, "400 pcm: send audio or pcm, not both"),
        ({"audio": SPEECH[:319]}, "400 audio: at least 20 ms (320 samples) expected, got 319"),
        ({"pcm": np.zeros(480_001, np.int16)}, "400 pcm: at most 30 s (480000 samples) expected"),
    ],
)
def test_an_invalid_piece_is_rejected_and_the_session_continues(
    connection: LiveConnection, face: bytes, inputs: dict[str, np.ndarray], reason: str
) -> None:
    connection.send(start=True, face_file=face)
    connection.receive()
    connection.send(**inputs)  # type: ignore[arg-type]
    assert connection.receive().error.startswith(reason)
    connection.send(audio=SPEECH, end=True)
    assert connection.receive().summary


def test_a_session_over_the_limit_is_rejected_until_another_ends(served: Served, face: bytes) -> None:
    limit = LiveSettings().live_sessions
    connections = [LiveConnection(served.stub, next(_sequences)) for _ in range(limit + 1)]
    for connection in connections[:limit]:
        connection.send(start=True, face_file=face)
        assert connection.receive().session
    connections[-1].send(start=True, face_file=face)
    assert connections[-1].receive().error == f"503 limit of {limit} live sessions reached; try again later"
    for connection in connections[:limit]:
        connection.send(end=True, pcm=np.zeros(0, np.int16))
        assert connection.receive().summary
    again = run_session(connections[-1], face, SPEECH)
    assert again.summary
    for connection in connections:
        connection.close()


def test_a_video_that_takes_too_much_memory_is_rejected(connection: LiveConnection, tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mp4", np.zeros((1, 1080, 1920, 3), np.uint8), extra=["-vf", "loop=200:1"])
    connection.send(start=True, face_file=long.read_bytes())
    error = connection.receive().error
    assert (
        error
        == "413 face_file: too large for a live session: its frames take 1197 MiB, at most 1024 are allowed; "
        + ("send fewer frames, or set max_height")
    )


def test_a_request_for_more_frames_than_the_memory_limit_is_rejected(connection: LiveConnection, face: bytes) -> None:
    large = cv2.resize(cv2.imdecode(np.frombuffer(face, np.uint8), cv2.IMREAD_COLOR), (1920, 1080))
    connection.send(start=True, face_file=cv2.imencode(".jpg", large)[1].tobytes())
    assert connection.receive().session
    connection.send(audio=np.zeros(160_000, np.float32))
    assert (
        connection.receive().error
        == "400 audio: too many frames in one request; send shorter pieces, or use jpeg or mouth"
    )
    connection.send(audio=SPEECH[:640])
    assert connection.receive().error == ""


def test_concurrent_sessions_do_not_mix(served: Served, face: bytes) -> None:
    loud, silent = SPEECH, np.zeros_like(SPEECH)
    results: dict[int, Responses] = {}

    def session(number: int) -> None:
        connection = LiveConnection(served.stub, next(_sequences))
        results[number] = run_session(connection, face, silent if number % 2 else loud)
        connection.close()

    threads = [threading.Thread(target=session, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (2, 3):
        for n, frame in results[number].frames.items():
            np.testing.assert_allclose(frame["frame"].astype(int), results[number - 2].frames[n]["frame"], atol=1)
    assert results[0].frames.keys() == results[1].frames.keys()
    assert any(
        np.abs(frame["frame"].astype(int) - results[1].frames[n]["frame"]).max() > 20
        for n, frame in results[0].frames.items()
    )


def test_the_session_of_a_client_that_disconnects_is_closed(served: Served, face: bytes) -> None:
    connection = LiveConnection(served.stub, next(_sequences))
    name = connection.send(start=True, face_file=face)
    connection.receive()
    connection.cancel()
    end = time.monotonic() + 3 * SEQUENCE_IDLE_SECONDS
    line = f"live [{name}] session closed"
    while line not in served.log.read_text() and time.monotonic() < end:
        time.sleep(0.2)
    assert line in served.log.read_text()


def test_speech_in_real_time_gets_its_frames_meanwhile(connection: LiveConnection, face: bytes, samples: Path) -> None:
    """One thread sends the pieces at the pace of speech, another receives the frames."""
    speech, _ = soundfile.read(samples / "speech.wav", dtype="float32", frames=16_000)
    sent = pieces(speech)

    def send_pieces() -> None:
        for n, piece in enumerate(sent):
            connection.send(audio=piece, end=n == len(sent) - 1)
            time.sleep(PIECE / 16_000)

    connection.send(start=True, face_file=face, format="jpeg")
    connection.receive()
    sender = threading.Thread(target=send_pieces)
    sender.start()
    responses = connection.receive(len(sent))
    sender.join()
    assert responses.summary
    assert sorted(responses.frames) == list(range(responses.summary["frames"]))
