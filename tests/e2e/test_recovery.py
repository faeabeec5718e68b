"""The whole service while its processes are killed: what callers see, and that it heals itself.

These take minutes; tests/soak/test_soak.py kills a model in every run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from tests.soak.chaos import FAULTS, TRITON, Fault
from tests.soak.forms import FormCase
from tests.soak.recovery import measure, stills
from tests.soak.stack import SoakStack, running
from tests.support.triton_streams import LiveConnection, make_request, stub

LIMIT = 60.0  # seconds; docs/operations/recovery.md says 20, on a machine with nothing else to do
STREAM_LIMIT = 10.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoakStack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVATAR_CACHE_MIB", "0")  # a cached avatar needs no detector
        with running(tiny_repository, tmp_path_factory.mktemp("service")) as service:
            yield service


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> list[FormCase]:
    return stills(tmp_path_factory.mktemp("forms"))


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name.replace(" ", "-") for fault in FAULTS])
def test_every_process_is_replaced_and_callers_see_nothing_but_503(
    service: SoakStack, forms: list[FormCase], fault: Fault
) -> None:
    recovery = measure(service, fault, forms)
    assert [answer for answer in recovery.answers if not answer.is_allowed] == []
    assert recovery.good is not None
    assert recovery.good < LIMIT


@pytest.mark.parametrize("model", ["avatar", "live", "wav2lip"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_streams_get_an_error_within_seconds(
    service: SoakStack, samples: Path, model: str, number: signal.Signals
) -> None:
    face, speech = (samples / "face.png").read_bytes(), (samples / "speech.wav").read_bytes()
    with stub(service.grpc_address) as server:
        job = make_request("avatar", face_file=face, audio_file=speech, length="hold")
        render = server.ModelStreamInfer(iter([job] * 4), timeout=LIMIT)
        live = LiveConnection(server, 700_001)
        live.send(start=True, face_file=face, audio=np.zeros(8000, np.float32))
        assert live.receive().session
        next(iter(render))  # it is under way
        victim = service.stub(model)
        assert victim is not None
        begin = time.monotonic()
        victim.send_signal(number)
        for stream in (render, live):
            with pytest.raises(grpc.RpcError):
                _read_to_the_end(stream)
        assert time.monotonic() - begin < STREAM_LIMIT
    _wait_until_ready(service)


def _read_to_the_end(stream: grpc.Call | LiveConnection) -> None:
    if isinstance(stream, LiveConnection):
        while True:
            stream.send(audio=np.zeros(8000, np.float32))
            stream.receive()
    for _ in stream:
        pass


def _wait_until_ready(service: SoakStack) -> None:
    end = time.monotonic() + LIMIT
    while not service.is_ready():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_killed_gateway_is_replaced(service: SoakStack, forms: list[FormCase]) -> None:
    gateway = service.gateway()
    assert gateway is not None
    gateway.kill()
    gateway.wait(LIMIT)
    _wait_until_ready(service)
    assert forms[0].post(service.url).status_code == 200


def test_a_ctrl_c_during_a_restart_stops_everything(tiny_repository: Path, tmp_path: Path) -> None:
    with running(tiny_repository, tmp_path) as service:
        server = TRITON.find(service)
        assert server is not None
        server.kill()
        _until_log(service, "restart 1 in")
    # `running` has sent SIGINT, and raises if a process is left or if the status is not 0


def test_a_killed_supervisor_leaves_no_process(tiny_repository: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"did not stop cleanly: status -9, left: \[\]"),
        running(tiny_repository, tmp_path) as service,
    ):
        owned = service.processes()
        os.kill(service.supervisor.pid, signal.SIGKILL)
        assert psutil.wait_procs(owned[1:], timeout=LIMIT)[1] == []
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listed


def _until_log(service: SoakStack, text: str) -> None:
    end = time.monotonic() + LIMIT
    while text not in (service.folder / "logs" / "up.log").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
