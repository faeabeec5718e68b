"""Streams to the model `live`, with each request sent explicitly, for tests of unusual orders and contents."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import grpc
import numpy as np
import psutil
import soundfile
from tritonclient.grpc import service_pb2 as pb

from avatar.serving.live_errors import NO_SESSION
from lipsync.mel_stream import MelStream
from tests.support.triton_server import Served
from tests.support.triton_streams import Responses, is_last, make_request, send_request

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SPEECH, _ = soundfile.read(SAMPLES / "speech.wav", dtype="float32", start=16_000, frames=4800)  # 0.3 s
LONG_SPEECH = np.resize(SPEECH, 160_000)  # 10 s, so that it is in work for a while on any machine
SECONDS = 60.0  # a stream that has not ended by then is an error
SESSION_CLOSED = f"400 {NO_SESSION}"
FORGOTTEN = "must specify the START flag"  # in Triton's own error, once it has forgotten the session
NO_AUDIO = np.zeros(0, np.int16)
_MEL = MelStream(25.0)
FRAMES_OF_SPEECH = len(_MEL.feed(SPEECH))  # frames of which the window ends within the speech
FRAMES_OF_SESSION = FRAMES_OF_SPEECH + len(_MEL.flush())  # and those that follow the end of the session
sequences = count(500_000)


class Stream:
    """One stream. A thread reads its responses and collects them by the id of their request."""

    def __init__(self, served: Served, seconds: float = SECONDS) -> None:
        self.responses: defaultdict[str, Responses] = defaultdict(Responses)
        self.finished: list[str] = []  # ids of requests, in the order of their last responses
        self.code: grpc.StatusCode | None = None
        self._requests: queue.Queue[pb.ModelInferRequest | None] = queue.Queue()
        self._stream = served.stub.ModelStreamInfer(iter(self._requests.get, None), timeout=seconds)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, *requests: pb.ModelInferRequest) -> None:
        for request in requests:
            self.responses.setdefault(request.id, Responses())  # by this thread alone, before the reader needs it
            self._requests.put(request)

    def wait_until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.finished, self.code)
            time.sleep(0.02)

    def wait_until_finished(self, *identities: str) -> None:
        self.wait_until(lambda: set(identities) <= set(self.finished))

    def token(self, identity: str) -> str:
        """Return the token of the session that the request `identity` has started."""
        session = self.responses[identity].session
        assert session, self.responses[identity].error
        return str(session["token"])

    def end(self) -> None:
        """End the requests of the stream, and wait until the server ends its responses."""
        self._requests.put(None)
        self._reader.join(SECONDS)
        assert not self._reader.is_alive()
        assert self.code is None, "the stream ended with a status"

    def cancel(self) -> None:
        self._stream.cancel()
        self._requests.put(None)
        self._reader.join(SECONDS)

    def _read(self) -> None:
        try:
            for response in self._stream:
                identity = response.infer_response.id
                self.responses[identity].add(response)
                if is_last(response) or response.error_message:
                    self.finished.append(identity)
        except grpc.RpcError as error:
            self.code = error.code()


def live_request(
    sequence: int | str,
    name: str,
    *,
    start: bool = False,
    end: bool = False,
    **inputs: bytes | str | np.ndarray,
) -> pb.ModelInferRequest:
    request = make_request("live", name, **inputs)
    if isinstance(sequence, str):
        request.parameters["sequence_id"].string_param = sequence
    else:
        request.parameters["sequence_id"].int64_param = sequence
    request.parameters["sequence_start"].bool_param = start
    request.parameters["sequence_end"].bool_param = end
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    return request


def run_session(served: Served, face: bytes, sequence: int | str, **options: str) -> Responses:
    """Run a session in one request: start, speech and end."""
    return send_request(
        served.stub, live_request(sequence, "all", start=True, end=True, face_file=face, audio=SPEECH, **options)
    )


def finish(served: Served, sequence: int) -> Responses:
    """End a session, so that it does not count in the next test."""
    return send_request(served.stub, live_request(sequence, "end", end=True, pcm=NO_AUDIO))


def stub_processes(served: Served) -> set[int]:
    pids = set()
    # their own children are ffmpegs, which have the name of their parent for a moment
    for child in psutil.Process(served.triton.pid).children():
        with suppress(psutil.NoSuchProcess):
            if "python_b" in child.name():
                pids.add(child.pid)
    assert pids
    return pids
