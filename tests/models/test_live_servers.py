"""Live sessions on servers of their own: with callers that do not read, and with sessions that are open at a stop."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import psutil
import pytest
from tritonclient.grpc import model_config_pb2 as pb

from avatar_client import AvatarClient, Cleared, Frame, LiveSession, Unavailable
from embedded import command_line
from embedded.server import Triton
from export.triton_config import model_config
from lipsync import tensors
from tests.conftest import job_env
from tests.support import tiny_models
from tests.support.live_streams import LONG_SPEECH
from tests.support.triton_streams import LiveConnection, stub

MIB = 1 << 20
UNREAD_MIB = 64
SECONDS = 90.0
FRAME_BYTES = 320 * 240 * 3
PIECES = 12  # of ten seconds: 0.7 GB of frames


@pytest.fixture(scope="module")
def face(samples: Path) -> bytes:
    picture = cv2.imread(str(samples / "face.png"))[::2, ::2]
    return cv2.imencode(".png", picture)[1].tobytes()


@pytest.fixture(scope="module")
def live_repository(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of a session: a server with them starts in half of the time."""
    folder = tmp_path_factory.mktemp("live") / "repository"
    for name in ("live", "detect_faces", "s3fd", "face_nms", "wav2lip"):
        shutil.copytree(tiny_repository / name, folder / name)
    return folder


def server(repository: Path, folder: Path, **env: str) -> Triton:
    return Triton(repository, log=folder / "triton.log", env={**job_env(folder), **env}, stop_timeout=SECONDS)


@pytest.fixture(scope="module")
def strict_server(live_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A server that accepts little unread output, and no request without a token."""
    env = {
        "AVATAR_UNREAD_MIB": str(UNREAD_MIB),
        "AVATAR_LIVE_REQUIRE_TOKEN": "true",
        "AVATAR_LIVE_SESSIONS": "4",
    }
    with server(live_repository, tmp_path_factory.mktemp("strict"), **env) as triton:
        yield triton


def start(session: LiveConnection, face: bytes) -> str:
    """Start a session, and return its token."""
    session.send(start=True, face_file=face)
    started = session.receive().session
    assert started
    return str(started["token"])


def wait_for_log(triton: Triton, text: str) -> None:
    end = time.monotonic() + SECONDS
    while text not in triton.log_path.read_text():
        assert time.monotonic() < end, f"{text!r} is not in the log"
        time.sleep(0.1)


def test_a_server_can_demand_the_token(strict_server: Triton, face: bytes) -> None:
    with stub(strict_server.grpc_address) as connection:
        session = LiveConnection(connection, 1)
        token = start(session, face)
        session.send(audio=LONG_SPEECH[:640])
        assert session.receive().error.startswith("403 token: ")
        session.send(audio=LONG_SPEECH[:640], token=token)
        assert session.receive().error == ""
        session.send(end=True, token=token)
        assert session.receive().summary
        session.close()


def test_a_caller_that_reads_gets_more_than_the_limit_of_unread_output(strict_server: Triton, face: bytes) -> None:
    with stub(strict_server.grpc_address) as connection:
        session = LiveConnection(connection, 1)
        token = start(session, face)
        frames = 0
        while frames * FRAME_BYTES < 2 * UNREAD_MIB * MIB:
            session.send(audio=LONG_SPEECH, token=token)
            received = session.receive()
            assert received.error == ""
            frames += len(received.frames)
        session.send(end=True, token=token)
        assert session.receive().summary
        session.close()


def test_a_session_whose_caller_does_not_read_is_ended_and_others_are_not(strict_server: Triton, face: bytes) -> None:
    stop = threading.Event()
    with stub(strict_server.grpc_address) as connection, AvatarClient(strict_server.grpc_address) as client:
        reading = client.live(face, format="bgr")

        def speak() -> None:
            with reading:
                while not stop.is_set():
                    reading.send(LONG_SPEECH[:16_000])
                    frames = 0
                    while frames < 20:
                        frames += len(list(reading.frames(block=False)))
                        time.sleep(0.02)
                reading.end()
                list(reading)

        speaker = threading.Thread(target=speak)
        speaker.start()
        process = psutil.Process(strict_server.pid)
        before = process.memory_info().rss
        silent = LiveConnection(connection, 2)  # responses are only read by `receive`
        token = start(silent, face)
        for _ in range(PIECES):
            silent.send(audio=LONG_SPEECH, token=token)
        wait_for_log(strict_server, "its responses are not read")
        time.sleep(2)
        growth = process.memory_info().rss - before
        stop.set()
        speaker.join(SECONDS)
        received = silent.receive(PIECES)
        silent.cancel()
    assert not speaker.is_alive()
    assert reading.summary, "the session whose caller reads was ended too"
    assert growth < 4 * UNREAD_MIB * MIB
    assert received.error.startswith("503 the stream was ended: ")
    assert "MiB of its responses are not acknowledged" in received.error
    assert UNREAD_MIB * MIB < len(received.frames) * FRAME_BYTES < 4 * UNREAD_MIB * MIB


def test_a_stop_waits_for_no_lost_session(
    live_repository: Path, tmp_path: Path, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton counts each session as an inference in progress, and would wait for it until its exit timeout.

    Without inferences it unloads its models, and 2.51 sometimes waits for that: docs/grpc/errors-and-limits.md.
    """
    monkeypatch.setattr(command_line, "EXIT_SECONDS", 30)
    with (
        server(live_repository, tmp_path, AVATAR_LIVE_SESSIONS="3") as triton,
        stub(triton.grpc_address) as connection,
    ):
        lost = [LiveConnection(connection, number) for number in range(1, 6)]
        for number, session in enumerate(lost):
            session.send(start=True, face_file=face)
            assert bool(session.receive().session) == (number < 3)  # the others are over the limit
        for session in lost:
            session.cancel()
        triton.stop()
        log = triton.log_path.read_text()
    assert "Found 0 model versions that have in-flight inferences" in log
    assert list((tmp_path / "work").iterdir()) == []


def test_the_callers_of_sessions_learn_of_a_stop_while_they_speak_and_while_they_rest(
    live_repository: Path, tmp_path: Path, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Triton 2.51 sometimes waits for it if requests come in during the stop: docs/grpc/errors-and-limits.md
    monkeypatch.setattr(command_line, "EXIT_SECONDS", 10)
    errors: list[Exception] = []
    active = threading.Barrier(3)

    def speak(session: LiveSession) -> None:
        session.send(LONG_SPEECH[:640])
        active.wait(SECONDS)
        while True:
            session.send(LONG_SPEECH[:640])
            list(session.frames(block=False))
            time.sleep(0.04)

    def rest(session: LiveSession) -> None:
        session.rest()
        next(iter(session))
        active.wait(SECONDS)
        list(session)

    def run(client: AvatarClient, act: Callable[[LiveSession], None]) -> None:
        try:
            with client.live(face) as session:
                act(session)
        except Exception as error:
            errors.append(error)

    with server(live_repository, tmp_path) as triton, AvatarClient(triton.grpc_address) as client:
        callers = [threading.Thread(target=run, args=(client, act)) for act in (speak, rest)]
        for caller in callers:
            caller.start()
        active.wait(SECONDS)
        triton.stop()
        for caller in callers:
            caller.join(SECONDS)
    assert [(type(error), str(error)) for error in errors] == [(Unavailable, "the service is being stopped")] * 2
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.slow
def test_a_session_between_two_requests_learns_of_a_stop_with_its_next_one(
    live_repository: Path, tmp_path: Path, face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "EXIT_SECONDS", 60)
    with server(live_repository, tmp_path) as triton, stub(triton.grpc_address) as connection:
        session = LiveConnection(connection, 1)
        start(session, face)
        folders = len(list((tmp_path / "work").iterdir()))
        stopping = threading.Thread(target=triton.stop)
        stopping.start()
        time.sleep(2)
        session.send(audio=LONG_SPEECH[:640])
        error = session.receive().error
        end = time.monotonic() + SECONDS
        while len(list((tmp_path / "work").iterdir())) == folders:
            assert time.monotonic() < end
            time.sleep(0.05)
        session.cancel()  # or Triton would wait for the open stream
        stopping.join(SECONDS)
        assert not stopping.is_alive()
    assert error == "503 the service is being stopped"


HELD = """
import time
from pathlib import Path

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        Path({asked!r}).touch()
        while Path({hold!r}).exists():
            time.sleep(0.01)
        faces = [pb_utils.get_input_tensor_by_name(each, "face").as_numpy() for each in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("mouth", face)]) for face in faces]
"""


@pytest.mark.slow
def test_an_interruption_is_answered_while_the_network_does_not_answer(
    live_repository: Path, tmp_path: Path, face: bytes
) -> None:
    asked, hold = tmp_path / "asked", tmp_path / "hold"
    repository = tmp_path / "repository"
    shutil.copytree(live_repository, repository)
    shutil.rmtree(repository / "wav2lip")
    folder = tiny_models.write(repository, _python_config(tensors.WAV2LIP))
    (folder / "model.py").write_text(HELD.format(asked=str(asked), hold=str(hold)))
    with server(repository, tmp_path) as triton, AvatarClient(triton.grpc_address) as client:
        session = client.live(face, echo=True)
        hold.touch()
        session.send(LONG_SPEECH)
        end = time.monotonic() + SECONDS
        while not asked.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        session.clear()
        cleared = next(session.events())
        assert hold.exists()
        assert cleared == Cleared(-1, 0, 10.0)
        hold.unlink()
        session.end(LONG_SPEECH[:640])
        frames = list(session.events())
        assert all(isinstance(frame, Frame) and frame.index == n for n, frame in enumerate(frames))
        assert session.summary
        assert session.summary.frames == len(frames)


def _python_config(model: tensors.Model) -> pb.ModelConfig:
    """Return the configuration of a network for Triton's Python backend."""
    config = model_config.config(model)
    config.ClearField("default_model_filename")
    config.backend = "python"
    return config
