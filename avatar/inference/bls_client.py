"""The models from inside Triton, by business logic scripting (BLS): requests share batches with those of all callers.

Nothing of Triton is imported here: each model passes on `pb_utils`, as `lipsync.triton.pb_utils` describes it. Nor is
tritonclient, which NVIDIA's image lacks.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np

from lipsync import tensors, trial
from lipsync.arrays import Array, Floats, Images, Labels
from lipsync.errors import InvalidInput
from lipsync.tensors import Model
from lipsync.triton.pb_utils import PbUtils, TritonError

from ..errors import AvatarError, ShuttingDown, Unavailable
from ..options import Generator
from ..tracing import infer_span
from .protocol import GENERATORS, ModelInfo, ServedModel, described_by
from .readiness import fault_of
from .rows import count_rows, join_rows
from .shm_layout import check_inputs

logger = logging.getLogger("avatar")

# Calls in flight; one job has at most five. Further calls wait here instead of in Triton.
THREADS = 32
# BLS has no deadline: a call that is given up keeps its thread until Triton answers it. As long as this many threads
# are lost in that way, further calls are rejected at once.
MAX_LOST = THREADS // 2
TIMEOUT_SECONDS = 120.0
# How long one call should take. A network cannot be stopped within a call, so the networks may work this long, times
# the number of the job's calls in flight, for a caller that has disconnected.
CALL_SECONDS = 0.2
MIN_WINDOWS = 2  # of one call; fewer would cost more in calls than they save in waiting
# Triton may not have loaded yet what a configuration says that was changed so short a time ago.
SETTLE_SECONDS = 60.0
NEWEST = -1  # a version, as Triton writes it

SERVER_STOPPING = ("Server not ready", "Server is stopping")  # in Triton's errors

_MAX_BATCH_PATTERN, _GPU_PATTERN = r"^max_batch_size:\s*(\d+)", r"^\s*kind:\s*KIND_GPU\b"
_PARAMETER_PATTERN = r'key:\s*"([^"]*)"\s*value\s*:?\s*{\s*string_value:\s*"([^"]*)"'


class ModelNotServed(Unavailable):
    """Triton does not serve the model at this moment."""


class BlsInferenceClient:
    """Implements `InferenceClient` inside a Triton Python model. For one event loop."""

    def __init__(
        self, pb_utils: PbUtils, repository: Path, timeout: float = TIMEOUT_SECONDS, *, live: bool = False
    ) -> None:
        """Make a client.

        Args:
            pb_utils: Triton's module for Python models.
            repository: the folder that contains the folders of all models.
            timeout: seconds for one call, including its wait for a thread and in Triton's queues.
            live: whether to call the networks that are served for `live` alone, where there are such.
        """
        self._pb, self._repository, self._timeout = pb_utils, repository, timeout
        # not asyncio's own threads: there, calls that wait for the networks would delay pasting and reading
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bls")
        self._lost: set[Future[list[Array]]] = set()  # calls that were given up, but still have their thread
        self._versions: Mapping[str, str] = {}
        self._is_live, self._started = live, time.time()
        self._windows = _AdaptiveBatch(MIN_WINDOWS)
        self._images = _AdaptiveBatch(1)
        self._generators = {each: _for_live(model, repository) if live else model for each, model in GENERATORS.items()}
        models = (tensors.S3FD, *GENERATORS.values(), *self._generators.values())
        self._max_batch = {model.name: model.max_batch_size for model in models}

    async def check_ready(self) -> None:
        """As `InferenceClient`, without tiny calls: each job calls the models at once, and its errors say the same."""
        self._check_threads()

    async def model_info(self, generator: Generator) -> ModelInfo:
        """As `InferenceClient`; read from the files of the models' configurations, because BLS has no call for them."""
        info = await asyncio.to_thread(self._read_info, generator)
        self._max_batch[GENERATORS[generator].name] = info.generator_net.max_batch
        self._max_batch[tensors.S3FD.name] = info.detector_net.max_batch
        return info

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """As `InferenceClient`."""
        (windows,) = await self._infer(tensors.MEL_SPECTROGRAM, audio, np.array([fps]))
        return windows

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        """As `InferenceClient`."""

        async def call(rows: slice) -> list[Array]:
            if tensors.S3FD.name not in self._versions:
                return await self._infer(tensors.DETECT_FACES, frames[rows])
            return await self._infer(tensors.FACE_NMS, *await self._infer(tensors.S3FD, frames[rows]))

        boxes, scores = await self._images.run(len(frames), self._max_batch[tensors.S3FD.name], call)
        return boxes, scores

    async def wav2lip(self, faces: Images, windows: Floats, generator: Generator) -> Images:
        """As `InferenceClient`, for any number of faces."""
        model = self._generators[generator]

        async def call(rows: slice) -> list[Array]:
            return await self._infer(model, faces[rows], windows[rows])

        try:
            (mouths,) = await self._windows.run(len(windows), self._max_batch[model.name], call)
        except ModelNotServed as reason:
            if model is GENERATORS[generator]:
                raise
            logger.warning("%s; from now on the network of all callers is used", reason)
            self._generators[generator] = GENERATORS[generator]
            return await self.wav2lip(faces, windows, generator)
        return mouths

    async def segment(self, image: Images) -> Labels:
        """As `InferenceClient`."""
        (labels,) = await self._infer(tensors.SEGMENTATION, image)
        return labels

    def pinned(self, versions: Mapping[str, str]) -> BlsInferenceClient:
        """As `InferenceClient`."""
        view = copy(self)
        view._versions = versions
        return view

    async def close(self) -> None:
        """As `InferenceClient`; calls in flight continue, and their results are discarded."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _infer(self, model: Model, *inputs: Array) -> list[Array]:
        """Make one inference, with inputs and outputs in the order of the model's tensors."""
        version = int(self._versions.get(model.name, NEWEST))
        try:
            return await self._infer_version(model, version, inputs)
        except ModelNotServed:
            if version == NEWEST:
                raise
        return await self._infer_version(model, NEWEST, inputs)  # the trial has ended

    async def _infer_version(self, model: Model, version: int, inputs: tuple[Array, ...]) -> list[Array]:
        self._check_threads()
        batch, size = count_rows(model, inputs), sum(array.nbytes for array in inputs)
        with infer_span(model.name, "", batch=batch, size=size, shared_memory=True) as along:
            call = self._threads.submit(self._send, model, version, inputs, along.request_id)
            try:
                async with asyncio.timeout(self._timeout):
                    return await asyncio.wrap_future(call)
            except TimeoutError:
                if not call.cancel():  # it was sent: its thread is lost until Triton answers
                    self._lost.add(call)
                raise Unavailable(f"{model.name} did not answer in time") from None

    def _check_threads(self) -> None:
        """Raise Unavailable if calls that were given up leave too few threads."""
        self._lost -= {call for call in self._lost if call.done()}
        if len(self._lost) >= MAX_LOST:
            raise Unavailable("the models do not answer")

    def _send(self, model: Model, version: int, inputs: tuple[Array, ...], request_id: str) -> list[Array]:
        pb = self._pb
        check_inputs(model, inputs)
        pairs = zip(model.inputs, inputs, strict=True)
        request = pb.InferenceRequest(
            model_name=model.name,
            model_version=version,
            requested_output_names=[tensor.name for tensor in model.outputs],
            inputs=[pb.Tensor(tensor.name, np.ascontiguousarray(array)) for tensor, array in pairs],
            preferred_memory=pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU, 0),
            request_id=request_id,
        )
        try:
            # not async_exec: before Triton 26.07 it may free its response too early (python_backend, pull request 439)
            response = request.exec()
        except pb.TritonModelException as error:  # the request did not reach the model
            raise ModelNotServed(f"{model.name} cannot be reached") from error
        if response.has_error():
            raise _to_exception(pb, model, response.error())
        outputs = [pb.get_output_tensor_by_name(response, tensor.name).as_numpy() for tensor in model.outputs]
        return [array.copy() for array in outputs]  # their memory is freed with the response

    def _read_info(self, generator: Generator) -> ModelInfo:
        net = GENERATORS[generator]
        info = ModelInfo.of(net, {model.name: self._served(model) for model in described_by(net)})
        return replace(info, trial=None) if self._is_live else info  # sessions last: they keep the active version

    def _served(self, model: Model) -> ServedModel:
        path = self._repository / model.name / "config.pbtxt"
        try:
            served, changed = _served(path.read_text("utf-8")), path.stat().st_mtime
        except OSError:  # the model is in another folder: then nothing is known about it
            return ServedModel()
        if self._started < changed and time.time() < changed + SETTLE_SECONDS:
            return replace(served, parameters={**served.parameters, "export": "", trial.EXPORT: ""})
        return served


class _AdaptiveBatch:
    """Splits rows into calls of a size that adapts to how long the last calls took."""

    def __init__(self, min_rows: int) -> None:
        self._min_rows = self._rows = min_rows

    async def run(self, count: int, max_rows: int, call: Callable[[slice], Awaitable[list[Array]]]) -> list[Array]:
        """Call for `count` rows, at most `max_rows` at once, one part after the other; return their joined outputs."""
        parts: list[list[Array]] = []
        start = 0
        while start < count:
            rows = slice(start, min(count, start + min(self._rows, max_rows)))
            begin = time.monotonic()
            parts.append(await call(rows))
            self._adapt(rows.stop - rows.start, max_rows, time.monotonic() - begin)
            start = rows.stop
        return join_rows(parts)

    def _adapt(self, rows: int, max_rows: int, seconds: float) -> None:
        fitting = int(CALL_SECONDS * rows / max(seconds, 1e-6))
        # at most twice as many: one quick call says little
        self._rows = max(self._min_rows, min(max_rows, fitting, 2 * self._rows))


def _to_exception(pb: PbUtils, model: Model, error: TritonError) -> Exception:
    code = error.code()
    if code == pb.TritonError.INVALID_ARG:
        return InvalidInput(str(error.message()))
    if any(words in str(error.message()) for words in SERVER_STOPPING):
        return ShuttingDown()
    if fault := fault_of(str(error.message())):
        return fault
    if code in (pb.TritonError.UNAVAILABLE, pb.TritonError.NOT_FOUND, pb.TritonError.CANCELLED):
        return ModelNotServed(f"{model.name} cannot be reached")
    failed = AvatarError(f"{model.name} failed")
    failed.__cause__ = RuntimeError(str(error.message()))
    return failed


def _for_live(model: Model, repository: Path) -> Model:
    """Return the network with the same weights that is served for `live` alone, or `model` where there is none."""
    network = tensors.LIVE_NETWORKS[model.name]
    return network if (repository / network.name / "config.pbtxt").is_file() else model


def _served(config: str) -> ServedModel:
    max_batch = re.search(_MAX_BATCH_PATTERN, config, re.M)
    on_gpu = bool(re.search(_GPU_PATTERN, config, re.M))
    return ServedModel(dict(re.findall(_PARAMETER_PATTERN, config)), int(max_batch[1]) if max_batch else 0, on_gpu)
