"""After many streams the server uses no more resources than after a few; AVATAR_TEST_STREAMS sets the number."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import psutil
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from embedded.server import Triton
from tests.support.media import tone, write_wav
from tests.support.triton_streams import LiveConnection, make_request, outputs, send_request, stub

FEW = 20
MANY = int(os.environ.get("AVATAR_TEST_STREAMS", "40"))
CONCURRENT = 4
MIB = 1 << 20
SHM = "/dev/shm/"  # noqa: S108 - where Linux keeps POSIX shared memory
_sequences = count(50_000)


@dataclass(frozen=True)
class Resources:
    """Resources of the server and the processes of its models.

    Attributes:
        memory: private bytes, plus their part of shared memory (PSS).
        shared: bytes of their files in /dev/shm.
        files: number of open file descriptors.
        processes: number of processes.
    """

    memory: int
    shared: int
    files: int
    processes: int


def resources(triton: Triton) -> Resources:
    server = psutil.Process(triton.pid)
    processes = [server, *server.children(recursive=True)]
    mapped = {mapping.path for each in processes for mapping in each.memory_maps() if mapping.path.startswith(SHM)}
    return Resources(
        memory=sum(each.memory_full_info().pss for each in processes),
        shared=sum(Path(path).stat().st_blocks * 512 for path in mapped if Path(path).exists()),
        files=sum(each.num_fds() for each in processes),
        processes=len(processes),
    )


def complete(server: GRPCInferenceServiceStub, face: bytes, speech: bytes) -> None:
    responses = send_request(server, make_request("avatar", face_file=face, audio_file=speech))
    assert responses.error == ""
    assert responses.summary


def rejected(server: GRPCInferenceServiceStub, face: bytes, speech: bytes) -> None:
    assert send_request(server, make_request("avatar", face_file=face[: len(face) // 2], audio_file=speech)).error


def cancelled(server: GRPCInferenceServiceStub, face: bytes, speech: bytes) -> None:
    stream = server.ModelStreamInfer(iter([make_request("avatar", face_file=face, audio_file=speech)]))
    for response in stream:
        if "stage" in outputs(response):
            break
    stream.cancel()


def live_session(server: GRPCInferenceServiceStub, face: bytes, speech: bytes) -> None:
    connection = LiveConnection(server, next(_sequences))
    connection.send(start=True, face_file=face)
    connection.send(audio=np.zeros(4000, np.float32), end=True)
    assert connection.receive(2).summary
    connection.close()


def test_many_streams_use_no_more_resources_than_a_few(triton: Triton, samples: Path, tmp_path: Path) -> None:
    image = cv2.resize(cv2.imread(str(samples / "face.png")), (160, 120))
    face = cv2.imencode(".png", image)[1].tobytes()
    speech = write_wav(tmp_path / "speech.wav", tone(0.3)).read_bytes()
    kinds = (complete, live_session, complete, rejected, complete, cancelled)
    measured: list[Resources] = []
    with stub(triton.grpc_address) as server, ThreadPoolExecutor(CONCURRENT) as callers:

        def stream(number: int) -> None:
            kinds[number % len(kinds)](server, face, speech)

        for streams in (range(FEW), range(FEW, MANY)):
            list(callers.map(stream, streams))
            complete(server, face, speech)  # ends after the last cancelled job
            measured.append(resources(triton))
    few, many = measured
    print(f"after {FEW}: {astuple(few)}; after {MANY}: {astuple(many)}")
    assert many.memory < few.memory * 1.03 + 32 * MIB
    assert many.shared <= few.shared + 2 * MIB
    assert many.files <= few.files + 8
    assert many.processes == few.processes
