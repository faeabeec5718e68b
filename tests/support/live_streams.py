"""Streams of `live` by hand, for tests that put them out of order."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path

import grpc
import numpy as np
import psutil
import soundfile
from tritonclient.grpc import service_pb2 as pb

from avatar.serving.live_session import NO_SESSION
from lipsync.mel_stream import MelStream
from tests.support.triton_server import Served
from tests.support.triton_streams import Responses, ask, is_last, request

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SPEECH, _ = soundfile.read(SAMPLES / "speech.wav", dtype="float32", start=16_000, frames=4800)  # 0.3 s
LONG = np.resize(SPEECH, 160_000)  # 10 s, so that it is under way for a while on any machine
SECONDS = 60.0  # for a stream that ends; one that hangs fails then
GONE = f"400 {NO_SESSION}"
NOTHING = np.zeros(0, np.int16)
_HEARD = MelStream(25.0)
SPOKEN = len(_HEARD.feed(SPEECH))  # frames that it completes
WHOLE = SPOKEN + len(_HEARD.flush())  # and those that follow when it is over
sequences = count(500_000)


class Stream:
    """A stream by hand. Responses are read as they come, and belong to their request's id."""

    def __init__(self, served: Served, seconds: float = SECONDS) -> None:
        self.answers: defaultdict[str, Responses] = defaultdict(Responses)
        self.over: list[str] = []  # ids in the order of their last answers
        self.code: grpc.StatusCode | None = None
        self._requests: queue.Queue[pb.ModelInferRequest | None] = queue.Queue()
        self._stream = served.stub.ModelStreamInfer(iter(self._requests.get, None), timeout=seconds)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, *asked: pb.ModelInferRequest) -> None:
        for each in asked:
            self._requests.put(each)

    def until(self, ready: Callable[[], bool], seconds: float = SECONDS) -> None:
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, (self.over, self.code)
            time.sleep(0.02)

    def until_over(self, *identities: str) -> None:
        self.until(lambda: set(identities) <= set(self.over))

    def end(self) -> None:
        """Close our side, and wait for the server's."""
        self._requests.put(None)
        self._reader.join(SECONDS)
        assert not self._reader.is_alive()
        assert self.code is None, "it ended by itself"

    def cancel(self) -> None:
        self._stream.cancel()
        self._requests.put(None)
        self._reader.join(SECONDS)

    def _read(self) -> None:
        try:
            for answer in self._stream:
                identity = answer.infer_response.id
                self.answers[identity].add(answer)
                if is_last(answer) or answer.error_message:
                    self.over.append(identity)
        except grpc.RpcError as error:
            self.code = error.code()


def live(
    sequence: int | str,
    name: str,
    *,
    start: bool = False,
    end: bool = False,
    **inputs: bytes | str | np.ndarray,
) -> pb.ModelInferRequest:
    made = request("live", name, **inputs)
    if isinstance(sequence, str):
        made.parameters["sequence_id"].string_param = sequence
    else:
        made.parameters["sequence_id"].int64_param = sequence
    made.parameters["sequence_start"].bool_param = start
    made.parameters["sequence_end"].bool_param = end
    made.parameters["triton_enable_empty_final_response"].bool_param = True
    return made


def spoken(served: Served, face: bytes, sequence: int | str, **options: str) -> Responses:
    """A whole session in one request."""
    return ask(served.stub, live(sequence, "all", start=True, end=True, face_file=face, audio=SPEECH, **options))


def finish(served: Served, sequence: int) -> Responses:
    """End a session, so that its place is free for the next test."""
    return ask(served.stub, live(sequence, "end", end=True, pcm=NOTHING))


def stub_processes(served: Served) -> set[int]:
    children = psutil.Process(served.triton.pid).children(recursive=True)
    return {child.pid for child in children if "python_b" in child.name()}
