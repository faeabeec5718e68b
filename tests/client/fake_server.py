"""A KServe gRPC server in this process: the parts with a small arithmetic of their own, `avatar` and `live` as scripts.

A script is a generator: it takes what was sent and gives the answers; tests put their own in the place of the usual
ones, to have it refuse, die, wait or lie.
"""

from __future__ import annotations

import json
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

TYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype(np.uint8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
NAMES = {kind: name for name, kind in TYPES.items()}
SECONDS = 30.0  # that a test waits for what happens in another thread

Arrays = dict[str, Any]


@dataclass
class Request:
    """What one message asked: arrays by name (text for BYTES), parameters, what came through shared memory."""

    model: str
    inputs: Arrays
    parameters: dict[str, Any]
    shared: set[str] = field(default_factory=set)
    answer_shared: bool = False


Script = Callable[["FakeServer", Iterator[Request], grpc.ServicerContext], Iterator[pb.ModelStreamInferResponse]]


class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """One server on a free port of 127.0.0.1; a context manager."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.streams = 0  # ModelStreamInfer calls that were begun
        self.fail: deque[grpc.StatusCode] = deque()  # statuses of the next calls
        self.begun, self.cancelled = threading.Event(), threading.Event()  # of streams
        self.ready = True
        self.shares = True  # whether it registers memory
        self.registrations = 0
        self.regions: dict[str, np.ndarray] = {}
        self.in_use: set[str] = set()  # regions that it does not let go of
        self.avatar: Script = usual_avatar
        self.live: Script = usual_live
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> FakeServer:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    @property
    def calls(self) -> list[Request]:
        """Of the parts: the calls that were answered."""
        return [each for each in self.requests if each.model not in {"avatar", "live"}]

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ServerReadyResponse(ready=self.ready)

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ModelReadyResponse(ready=request.name in {"avatar", "live", *PARTS})

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.registrations += 1
        self._fail(context)
        if not self.shares:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Unable to open shared memory region")
        path = Path("/dev/shm") / request.key.lstrip("/")  # noqa: S108
        assert path.stat().st_size == request.byte_size
        self.regions[request.name] = np.memmap(path, np.uint8, "r+")
        return pb.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert request.name, "this would be all of them"
        if request.name in self.in_use:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "it is in use")
        self.regions.pop(request.name, None)
        return pb.SystemSharedMemoryUnregisterResponse()

    def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = pb.SystemSharedMemoryStatusResponse()
        for name in self.regions:
            answer.regions[name].name = name
        return answer

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._fail(context)
        read = self._read(request, context)
        self.requests.append(read)
        if read.model not in PARTS:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{read.model}' is not found")
        outputs = PARTS[read.model](context, **read.inputs)
        places = {output.name: output.parameters for output in request.outputs}
        answer = pb.ModelInferResponse(model_name=read.model)
        for name, array in outputs.items():
            answer.outputs.add(name=name, datatype=NAMES[array.dtype], shape=array.shape)
            data = array.tobytes()
            if name in places and "shared_memory_region" in places[name]:
                read.answer_shared = True
                _, view = self._view(places[name], context)
                view[: len(data)] = np.frombuffer(data, np.uint8)
                data = b""
            answer.raw_output_contents.append(data)
        return answer

    def ModelStreamInfer(self, requests: Any, context: Any) -> Any:  # noqa: N802
        self.streams += 1
        done = False
        context.add_callback(lambda: None if done else self.cancelled.set())
        self._fail(context)
        first = next(requests)
        script = self.avatar if first.model_name == "avatar" else self.live
        yield from script(self, self._all(first, requests, context), context)
        done = context.is_active()

    def _all(self, first: Any, rest: Iterator[Any], context: Any) -> Iterator[Request]:
        read = self._read(first, context)
        self.requests.append(read)
        self.begun.set()
        yield read
        for request in rest:
            read = self._read(request, context)
            self.requests.append(read)
            yield read

    def _fail(self, context: Any) -> None:
        if self.fail:
            context.abort(self.fail.popleft(), "as the test wants it")

    def _read(self, request: Any, context: Any) -> Request:
        raws = iter(request.raw_input_contents)
        inputs: Arrays = {}
        shared = set()
        for tensor in request.inputs:
            if "shared_memory_region" in tensor.parameters:
                shared.add(tensor.name)
                raw = self._view(tensor.parameters, context)[1].tobytes()
            else:
                raw = next(raws)
            if tensor.datatype == "BYTES":
                (length,) = struct.unpack_from("<I", raw)
                assert length == len(raw) - 4 and list(tensor.shape) == [1]
                inputs[tensor.name] = raw[4:].decode()
            else:
                inputs[tensor.name] = np.frombuffer(raw, TYPES[tensor.datatype]).reshape(tuple(tensor.shape))
        assert next(raws, None) is None
        parameters = {
            name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in request.parameters.items()
        }
        return Request(request.model_name, inputs, parameters, shared)

    def _view(self, place: Any, context: Any) -> tuple[str, np.ndarray]:
        name = place["shared_memory_region"].string_param
        begin = place["shared_memory_offset"].int64_param if "shared_memory_offset" in place else 0
        if name not in self.regions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'")
        return name, self.regions[name][begin : begin + place["shared_memory_byte_size"].int64_param]


def answer(model: str = "avatar", **outputs: Any) -> pb.ModelStreamInferResponse:
    """One answer of a stream: str as BYTES, bytes as UINT8 [n], arrays as they are."""
    response = pb.ModelInferResponse(model_name=model)
    for name, value in outputs.items():
        if isinstance(value, str):
            data = value.encode()
            response.outputs.add(name=name, datatype="BYTES", shape=(1,))
            response.raw_output_contents.append(struct.pack("<I", len(data)) + data)
            continue
        array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.asarray(value)
        response.outputs.add(name=name, datatype=NAMES[array.dtype], shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return pb.ModelStreamInferResponse(infer_response=response)


def final() -> pb.ModelStreamInferResponse:
    """The flag that a request has no more answers, with nothing else."""
    response = pb.ModelInferResponse(model_name="avatar")
    response.parameters["triton_final_response"].bool_param = True
    return pb.ModelStreamInferResponse(infer_response=response)


def problem(text: str) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse(error_message=text)


def progress(stage: str, done: int, total: int = -1) -> pb.ModelStreamInferResponse:
    return answer(stage=stage, done=np.array([done], np.int32), total=np.array([total], np.int32))


SUMMARY = {
    "frames": 3,
    "fps": "30000/1001",
    "duration": 0.1,
    "without_face": 1,
    "seconds": {"detect": 0.5, "encode": 0.25},
    "stand_ins": ["s3fd"],
    "container": "mp4",
}


def usual_avatar(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    """The video is the face's bytes and then the speech's, in pieces."""
    (request,) = requests
    video = request.inputs["face_file"].tobytes() + request.inputs["audio_file"].tobytes()
    yield progress("queue", 0)
    yield progress("encode", 0, 3)
    for begin in range(0, len(video), 1000):
        yield answer(video=video[begin : begin + 1000])
    yield progress("encode", 3, 3)
    yield answer(summary=json.dumps(SUMMARY))
    yield final()


def waiting_avatar(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    """It begins, and then goes on until the call is cancelled."""
    next(requests)
    yield progress("encode", 1, 100)
    yield answer(video=b"begin")
    server.cancelled.wait(SECONDS)


def session(first: Request) -> pb.ModelStreamInferResponse:
    """The answer to the first request of a session."""
    assert first.parameters["sequence_start"] and not first.parameters["sequence_end"]
    kind = first.inputs.get("format", "bgr")
    told = {"fps": "25", "width": 6, "height": 4, "frames": 1, "latency": 0.2, "format": kind}
    return answer("live", session=json.dumps(told))


def usual_live(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    """Frames of 4×6 at 25 fps, of the level of the loudest sample; every third shows no face."""
    first = next(requests)
    kind = first.inputs.get("format", "bgr")
    yield session(first)
    heard, index = np.zeros(0, np.int16), 0
    for request in requests:
        assert request.parameters["sequence_id"] == first.parameters["sequence_id"]
        if "pcm" in request.inputs:
            heard = np.concatenate((heard, request.inputs["pcm"]))
        else:
            heard = np.concatenate((heard, (request.inputs["audio"] * 32767).astype(np.int16)))
        while len(heard) >= 640 or (request.parameters["sequence_end"] and len(heard)):
            level = min(int(np.abs(heard[:640].astype(int)).max() // 128), 255)
            heard = heard[640:]
            box = np.array([0, 0, 0, 0] if index % 3 == 2 else [1, 2, 3, 4], np.int32)
            picture = np.full((4, 6, 3), level, np.uint8)
            shown = {"jpeg": b"JPEG" + bytes([level])} if kind == "jpeg" else {"frame": picture}
            yield answer("live", index=np.array([index], np.int32), box=box, **shown)
            index += 1
        yield final()
        if request.parameters["sequence_end"]:
            summary = {"frames": index, "duration": index / 25, "without_face": index // 3}
            yield answer("live", summary=json.dumps(summary))
            return
    server.cancelled.wait(SECONDS)  # a cancelled stream may look like one that was ended, for a moment


def nearest(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    rows, columns = (np.arange(n) * side // n for n, side in zip((height, width), picture.shape, strict=False))
    return picture[rows][:, columns]


def detect(context: Any, frames: np.ndarray) -> Arrays:
    if len(frames) > 4:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "batch-size must be <= 4")
    boxes = np.zeros((len(frames), 16, 4), np.float32)
    scores = np.zeros((len(frames), 16), np.float32)
    boxes[:, 0], scores[:, 0] = frames[:, 0, 0, :1], frames[:, 0, 0, 1] / 255
    return {"boxes": boxes, "scores": scores}


def mel(context: Any, audio: np.ndarray, fps: np.ndarray) -> Arrays:
    count = int(len(audio) * fps[0] // 16_000)
    return {"mel": np.arange(count, dtype=np.float32)[:, None, None] + np.zeros((1, 80, 16), np.float32)}


def lipsync(context: Any, frames: np.ndarray, boxes: np.ndarray, mel: np.ndarray) -> Arrays:
    if len(mel) > 32:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "batch-size must be <= 32")
    mouths = []
    for n, window in enumerate(mel):
        frame, (x1, y1, x2, y2) = frames[n % len(frames)], boxes[n % len(boxes)]
        assert 0 <= x1 < x2 <= frame.shape[1] and 0 <= y1 < y2 <= frame.shape[0]
        mouths.append(nearest(frame[y1:y2, x1:x2], 96, 96) + np.uint8(window[0, 0]))
    return {"mouths": np.stack(mouths)}


def paste(context: Any, frames: np.ndarray, boxes: np.ndarray, mouths: np.ndarray) -> Arrays:
    result = np.array(np.broadcast_to(frames, (len(mouths), *frames.shape[1:])))
    for n, mouth in enumerate(mouths):
        x1, y1, x2, y2 = boxes[n % len(boxes)]
        result[n, y1:y2, x1:x2] = nearest(mouth, x2 - x1, y2 - y1)
    return {"frames": result}


PARTS: dict[str, Callable[..., Arrays]] = {
    "detect_faces": detect,
    "mel_spectrogram": mel,
    "lipsync": lipsync,
    "lipsync_gan": lipsync,
    "face_paste": paste,
}
