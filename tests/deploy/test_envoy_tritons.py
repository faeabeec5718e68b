"""Envoy in front of two real Tritons: videos, live sessions, and what happens when one of them is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from embedded.server import Triton
from tests.conftest import job_env
from tests.support.envoy import Envoy, MetadataAdder, envoy_process
from tests.support.live_streams import NO_AUDIO, SPEECH, live_request
from tests.support.triton_streams import UNLIMITED, LiveConnection, Responses, make_request, send_request

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
FACE = (SAMPLES / "face.png").read_bytes()
SECONDS = 60.0


@pytest.fixture(scope="module")
def mortal(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A Triton that the last test kills."""
    folder = tmp_path_factory.mktemp("mortal")
    server = Triton(tiny_repository, log=folder / "triton.log", env=job_env(folder))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def envoy(triton: Triton, mortal: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    addresses = [triton.grpc_address, mortal.grpc_address]
    with envoy_process(tmp_path_factory.mktemp("envoy"), addresses) as running:
        yield running


@pytest.fixture
def stub(envoy: Envoy) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(envoy.address, options=UNLIMITED) as channel:
        yield GRPCInferenceServiceStub(grpc.intercept_channel(channel, MetadataAdder(envoy.metadata)))


def session_stub(envoy: Envoy, channel: grpc.Channel, session: str) -> GRPCInferenceServiceStub:
    """Return a stub whose streams name a session."""
    return GRPCInferenceServiceStub(
        grpc.intercept_channel(channel, MetadataAdder((*envoy.metadata, ("x-avatar-session", session))))
    )


def crop_request() -> pb.ModelInferRequest:
    return make_request(
        "face_crop", "", frames=np.zeros((1, 96, 96, 3), np.uint8), boxes=np.array([[0, 0, 96, 96]], np.int32)
    )


def calls_of(server: Triton, model: str) -> int:
    with InferenceServerClient(server.grpc_address) as client:
        (found,) = client.get_inference_statistics(model).model_stats
    return int(found.inference_stats.success.count + found.inference_stats.fail.count)


def whole_session(stub: GRPCInferenceServiceStub, sequence: int) -> Responses:
    request = live_request(sequence, "all", start=True, end=True, face_file=FACE, audio=SPEECH)
    return once_there_is_a_place(lambda: send_request(stub, request))


def started_session(stub: GRPCInferenceServiceStub, sequence: int) -> LiveConnection:
    def start() -> Responses:
        connection.send(start=True, face_file=FACE, audio=SPEECH)
        return connection.receive()

    connection = LiveConnection(stub, sequence)
    assert once_there_is_a_place(start).session
    return connection


def once_there_is_a_place(call: Callable[[], Responses]) -> Responses:
    """Repeat a call for as long as sessions that other tests have left hold all places."""
    end = time.monotonic() + SECONDS
    while "live sessions reached" in (responses := call()).error and time.monotonic() < end:
        time.sleep(0.5)
    return responses


def test_a_caller_with_a_key_gets_a_video_and_a_live_session(stub: GRPCInferenceServiceStub) -> None:
    speech = (SAMPLES / "speech.wav").read_bytes()
    video = send_request(stub, make_request("avatar", "1", face_file=FACE, audio_file=speech))
    assert not video.error
    assert video.video[4:8] == b"ftyp"
    live = whole_session(stub, 910_001)
    assert not live.error
    assert live.summary
    assert live.summary["frames"] == len(live.frames)


def test_what_crashes_triton_2_51_does_not_when_it_comes_through_envoy(
    stub: GRPCInferenceServiceStub, mortal: Triton, triton: Triton
) -> None:
    for sequence in (910_002, 910_003):  # to either server
        request = live_request(sequence, "all", start=True, end=True, face_file=FACE, audio=SPEECH)
        for name in ("session", "summary", "index", "box", "frame"):
            request.outputs.add(name=name).parameters["classification"].int64_param = 1
        answered = send_request(stub, request)
        assert not answered.error
        assert answered.summary
    failing = [
        make_request("avatar", str(number), face_file=b"no image", audio_file=b"no sound") for number in range(3)
    ]
    answers = list(stub.ModelStreamInfer(iter(failing), metadata=(("triton_grpc_error", "true"),), timeout=SECONDS))
    assert [each.error_message.startswith("400 ") for each in answers] == [True] * 3
    for server in (mortal, triton):
        with InferenceServerClient(server.grpc_address) as client:
            assert client.is_server_live()


def test_calls_of_single_models_go_to_both_servers(
    stub: GRPCInferenceServiceStub, triton: Triton, mortal: Triton
) -> None:
    before = [calls_of(server, "face_crop") for server in (triton, mortal)]
    for _ in range(60):
        stub.ModelInfer(crop_request(), timeout=SECONDS)
    after = [calls_of(server, "face_crop") for server in (triton, mortal)]
    spread = [new - old for new, old in zip(after, before, strict=True)]
    assert sum(spread) == 60
    assert min(spread) > 0, spread


def test_streams_that_name_one_session_reach_the_same_server(envoy: Envoy) -> None:
    for sequence in range(910_100, 910_106):
        with grpc.insecure_channel(envoy.address, options=UNLIMITED) as channel:
            stub = session_stub(envoy, channel, str(sequence))
            started = send_request(stub, live_request(sequence, "a", start=True, face_file=FACE, audio=SPEECH))
            assert started.session, started.error
        with grpc.insecure_channel(envoy.address, options=UNLIMITED) as channel:  # another connection
            stub = session_stub(envoy, channel, str(sequence))
            token = started.session["token"]
            ended = send_request(stub, live_request(sequence, "b", end=True, pcm=NO_AUDIO, token=token))
            assert ended.summary, ended.error


def test_when_one_server_is_killed_its_streams_end_and_everything_else_is_served_by_the_other(
    envoy: Envoy, stub: GRPCInferenceServiceStub, mortal: Triton
) -> None:
    connections = [started_session(stub, sequence) for sequence in range(910_200, 910_204)]
    os.kill(mortal.pid, signal.SIGKILL)
    outcomes = []
    for connection in connections:
        try:
            connection.send(end=True, pcm=NO_AUDIO)
            outcomes.append(bool(connection.receive().summary))
        except grpc.RpcError as error:
            assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
            outcomes.append(False)
    for _ in range(30):
        stub.ModelInfer(crop_request(), timeout=SECONDS)  # tried again elsewhere, so none fails
    envoy.wait_for(lambda: envoy.healthy() == 1)
    assert whole_session(stub, 910_300).summary
