"""A KServe gRPC server in this process: the single models compute simple results, `avatar` and `live` run scripts.

A script is a generator that receives the requests of a stream and yields its responses. Tests replace the default
scripts to make the server reject, abort, wait or send invalid responses.
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
SECONDS = 30.0  # how long a test waits for an event of another thread

Arrays = dict[str, Any]


@dataclass
class Request:
    """One parsed request.

    Attributes:
        inputs: arrays by name; text for BYTES.
        shared: names of the inputs that were in shared memory.
        output_shared: whether an output was written to shared memory.
    """

    model: str
    inputs: Arrays
    parameters: dict[str, Any]
    shared: set[str] = field(default_factory=set)
    output_shared: bool = False


Script = Callable[["FakeServer", Iterator[Request], grpc.ServicerContext], Iterator[pb.ModelStreamInferResponse]]


class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A server on a free port of 127.0.0.1, as a context manager."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.streams = 0  # number of ModelStreamInfer calls
        self.failures: deque[grpc.StatusCode] = deque()  # statuses with which the next calls fail
        self.started, self.cancelled = threading.Event(), threading.Event()  # of streams
        self.ready = True
        self.accepts_shared_memory = True  # whether it registers regions
        self.token: str | None = None  # which the calls for shared memory have to send
        self.registrations = 0
        self.regions: dict[str, np.ndarray] = {}
        self.in_use: set[str] = set()  # regions that it refuses to unregister
        self.avatar: Script = default_avatar
        self.live: Script = default_live
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
        """Return the requests to single models that were processed."""
        return [each for each in self.requests if each.model not in {"avatar", "live"}]

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ServerReadyResponse(ready=self.ready)

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ModelReadyResponse(ready=request.name in {"avatar", "live", *SINGLE_MODELS})

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.registrations += 1
        self._check_token(context)
        self._fail(context)
        if not self.accepts_shared_memory:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Unable to open shared memory region")
        path = Path("/dev/shm") / request.key.lstrip("/")  # noqa: S108
        assert path.stat().st_size == request.byte_size
        self.regions[request.name] = np.memmap(path, np.uint8, "r+")
        return pb.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._check_token(context)
        assert request.name, "an empty name would unregister all regions"
        if request.name in self.in_use:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "it is in use")
        self.regions.pop(request.name, None)
        return pb.SystemSharedMemoryUnregisterResponse()

    def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._check_token(context)
        response = pb.SystemSharedMemoryStatusResponse()
        for name in self.regions:
            response.regions[name].name = name
        return response

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._fail(context)
        parsed = self._parse(request, context)
        self.requests.append(parsed)
        if parsed.model not in SINGLE_MODELS:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{parsed.model}' is not found")
        outputs = SINGLE_MODELS[parsed.model](context, **parsed.inputs)
        output_parameters = {output.name: output.parameters for output in request.outputs}
        response = pb.ModelInferResponse(model_name=parsed.model)
        for name, array in outputs.items():
            response.outputs.add(name=name, datatype=NAMES[array.dtype], shape=array.shape)
            data = array.tobytes()
            if name in output_parameters and "shared_memory_region" in output_parameters[name]:
                parsed.output_shared = True
                _, view = self._view(output_parameters[name], context)
                view[: len(data)] = np.frombuffer(data, np.uint8)
                data = b""
            response.raw_output_contents.append(data)
        return response

    def ModelStreamInfer(self, requests: Any, context: Any) -> Any:  # noqa: N802
        self.streams += 1
        done = False
        context.add_callback(lambda: None if done else self.cancelled.set())
        self._fail(context)
        first = next(requests)
        script = self.avatar if first.model_name == "avatar" else self.live
        yield from script(self, self._parse_all(first, requests, context), context)
        done = context.is_active()

    def _parse_all(self, first: Any, rest: Iterator[Any], context: Any) -> Iterator[Request]:
        parsed = self._parse(first, context)
        self.requests.append(parsed)
        self.started.set()
        yield parsed
        for request in rest:
            parsed = self._parse(request, context)
            self.requests.append(parsed)
            yield parsed

    def _check_token(self, context: Any) -> None:
        """Fail like Triton if the request has no token or another one."""
        header = "triton-grpc-protocol-avatar-token"
        if self.token is not None and dict(context.invocation_metadata()).get(header) != self.token:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"This protocol is restricted, expecting header '{header}'")

    def _fail(self, context: Any) -> None:
        if self.failures:
            context.abort(self.failures.popleft(), "failure set by the test")

    def _parse(self, request: Any, context: Any) -> Request:
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

    def _view(self, parameters: Any, context: Any) -> tuple[str, np.ndarray]:
        name = parameters["shared_memory_region"].string_param
        begin = parameters["shared_memory_offset"].int64_param if "shared_memory_offset" in parameters else 0
        if name not in self.regions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'")
        return name, self.regions[name][begin : begin + parameters["shared_memory_byte_size"].int64_param]


def stream_response(model: str = "avatar", **outputs: Any) -> pb.ModelStreamInferResponse:
    """Return a response of a stream: str becomes BYTES, bytes become UINT8 [n], arrays keep their type."""
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


def final_response() -> pb.ModelStreamInferResponse:
    """Return an empty response with the flag that it is the last one of its request."""
    response = pb.ModelInferResponse(model_name="avatar")
    response.parameters["triton_final_response"].bool_param = True
    return pb.ModelStreamInferResponse(infer_response=response)


def error_response(text: str) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse(error_message=text)


def progress_response(stage: str, done: int, total: int = -1) -> pb.ModelStreamInferResponse:
    return stream_response(stage=stage, done=np.array([done], np.int32), total=np.array([total], np.int32))


SUMMARY = {
    "frames": 3,
    "fps": "30000/1001",
    "duration": 0.1,
    "without_face": 1,
    "seconds": {"detect": 0.5, "encode": 0.25},
    "stand_ins": ["s3fd"],
    "container": "mp4",
}


def default_avatar(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    """Send the bytes of the face and then those of the speech as the video, in chunks."""
    (request,) = requests
    video = request.inputs["face_file"].tobytes() + request.inputs["audio_file"].tobytes()
    yield progress_response("queue", 0)
    yield progress_response("encode", 0, 3)
    for begin in range(0, len(video), 1000):
        yield stream_response(video=video[begin : begin + 1000])
    yield progress_response("encode", 3, 3)
    yield stream_response(summary=json.dumps(SUMMARY))
    yield final_response()


def waiting_avatar(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    """Send the beginning of a video, and wait until the call is cancelled."""
    next(requests)
    yield progress_response("encode", 1, 100)
    yield stream_response(video=b"begin")
    server.cancelled.wait(SECONDS)


def session_response(first: Request) -> pb.ModelStreamInferResponse:
    """Return the response to the first request of a session."""
    assert first.parameters["sequence_start"] and not first.parameters["sequence_end"]
    kind = first.inputs.get("format", "bgr")
    info = {"fps": "25", "width": 6, "height": 4, "frames": 1, "latency": 0.2, "format": kind}
    return stream_response("live", session=json.dumps(info))


def default_live(server: FakeServer, requests: Iterator[Request], context: Any) -> Iterator[Any]:
    """Send frames of 4×6 at 25 fps, as bright as the loudest sample; every third one has no face."""
    first = next(requests)
    kind = first.inputs.get("format", "bgr")
    yield session_response(first)
    buffered, index = np.zeros(0, np.int16), 0
    for request in requests:
        assert request.parameters["sequence_id"] == first.parameters["sequence_id"]
        if "pcm" in request.inputs:
            buffered = np.concatenate((buffered, request.inputs["pcm"]))
        else:
            buffered = np.concatenate((buffered, (request.inputs["audio"] * 32767).astype(np.int16)))
        while len(buffered) >= 640 or (request.parameters["sequence_end"] and len(buffered)):
            level = min(int(np.abs(buffered[:640].astype(int)).max() // 128), 255)
            buffered = buffered[640:]
            box = np.array([0, 0, 0, 0] if index % 3 == 2 else [1, 2, 3, 4], np.int32)
            image = np.full((4, 6, 3), level, np.uint8)
            image_output = {"jpeg": b"JPEG" + bytes([level])} if kind == "jpeg" else {"frame": image}
            yield stream_response("live", index=np.array([index], np.int32), box=box, **image_output)
            index += 1
        yield final_response()
        if request.parameters["sequence_end"]:
            summary = {"frames": index, "duration": index / 25, "without_face": index // 3}
            yield stream_response("live", summary=json.dumps(summary))
            return
    server.cancelled.wait(SECONDS)  # for a moment a cancelled stream looks like one that the client has ended


def nearest(image: np.ndarray, width: int, height: int) -> np.ndarray:
    rows, columns = (np.arange(n) * side // n for n, side in zip((height, width), image.shape, strict=False))
    return image[rows][:, columns]


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


SINGLE_MODELS: dict[str, Callable[..., Arrays]] = {
    "detect_faces": detect,
    "mel_spectrogram": mel,
    "lipsync": lipsync,
    "lipsync_gan": lipsync,
    "face_paste": paste,
}
