"""The models from inside Triton, by business logic scripting (BLS): the job's own requests join everybody's batches.

It imports nothing of Triton: `pb_utils` exists only inside the server and is handed in, as in `lipsync.serving`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from lipsync import tensors
from lipsync.arrays import Array, Boxes, Floats, Images, Labels
from lipsync.errors import InvalidInput
from lipsync.tensors import S3FD_BATCH, WAV2LIP_BATCH, Model
from lipsync.triton.pb_utils import PbUtils

from ..errors import AvatarError, ShuttingDown, Unavailable
from ..options import Generator
from .protocol import GENERATORS, LIPSYNC, Frames, ModelInfo
from .shm_layout import TensorInput, stacked, validated

# Calls under way: of one job at most five. More jobs at once wait here instead of in Triton.
THREADS = 32
# How long one call should take. What a net has begun cannot be called back, so this, times the calls that a job has
# under way, is how long the nets still work for a caller who is gone.
CALL_SECONDS = 0.2
FEWEST_WINDOWS = 2  # of one call; fewer would cost more in calls than they save in waiting

_PARAMETER_PATTERN = r'key:\s*"{}"\s*value\s*:?\s*{{\s*string_value:\s*"([^"]*)"'


class BlsInferenceClient:
    """Implements `Models` inside a Triton Python model. To be used from one event loop."""

    def __init__(self, pb_utils: PbUtils, repository: Path) -> None:
        """`repository`: the folder that holds this model's folder and the others'."""
        self._pb, self._repository = pb_utils, repository
        # not asyncio's own threads: calls that wait for the nets would keep pasting and reading waiting
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bls")
        self._windows = _AdaptiveBatch(FEWEST_WINDOWS, WAV2LIP_BATCH)
        self._pictures = _AdaptiveBatch(1, S3FD_BATCH)

    async def check_ready(self) -> None:
        """As `Models`. Triton serves no request before every model has loaded; one that goes later says so itself."""

    async def model_info(self, net: Generator) -> ModelInfo:
        """As `Models`; read in the other models' configurations, for BLS cannot ask for them."""
        return await asyncio.to_thread(self._about, net)

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """As `Models`."""
        (windows,) = await self._infer(tensors.MEL_SPECTROGRAM, audio, np.array([fps]))
        return windows

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        """As `Models`."""

        async def piece(rows: slice) -> list[Array]:
            return await self._infer(tensors.DETECT_FACES, frames[rows])

        boxes, scores = await self._pictures.work(len(frames), piece)
        return boxes, scores

    async def lipsync(self, frames: Frames, boxes: Boxes, windows: Floats, net: Generator) -> Images:
        """As `Models`."""

        async def piece(rows: slice) -> list[Array]:
            shown = frames if len(frames) == 1 else frames[rows]
            placed = boxes if len(boxes) == 1 else boxes[rows]
            return await self._infer(LIPSYNC[net], shown, placed, windows[rows])

        (mouths,) = await self._windows.work(len(windows), piece)
        return mouths

    async def wav2lip(self, faces: Images, windows: Floats, net: Generator) -> Images:
        """Crops UINT8 [n,96,96,3] and their windows FP32 [n,80,16] to mouths: `lipsync` for who has cut already."""

        async def piece(rows: slice) -> list[Array]:
            return await self._infer(GENERATORS[net], faces[rows], windows[rows])

        (mouths,) = await self._windows.work(len(windows), piece)
        return mouths

    async def segment(self, image: Images) -> Labels:
        """As `Models`."""
        (labels,) = await self._infer(tensors.SEGMENTATION, image)
        return labels

    async def close(self) -> None:
        """As `Models`; calls under way go on, and nobody waits for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _infer(self, model: Model, *given: TensorInput) -> list[Array]:
        """One inference, inputs and outputs in the order of the model's tensors."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._send, model, given)

    def _send(self, model: Model, given: tuple[TensorInput, ...]) -> list[Array]:
        pb = self._pb
        pairs = zip(model.inputs, given, strict=True)
        request = pb.InferenceRequest(
            model_name=model.name,
            requested_output_names=[tensor.name for tensor in model.outputs],
            inputs=[pb.Tensor(tensor.name, _array(tensor, each, model)) for tensor, each in pairs],
            preferred_memory=pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU, 0),
        )
        try:
            # not async_exec: up to 24.10 it may free its answer too early (python_backend, pull request 439)
            response = request.exec()
        except pb.TritonModelException as error:  # it did not get as far as to the model
            raise Unavailable(f"{model.name} cannot be reached") from error
        if response.has_error():
            raise _to_exception(pb, model, response.error())
        answers = [pb.get_output_tensor_by_name(response, tensor.name).as_numpy() for tensor in model.outputs]
        return [answer.copy() for answer in answers]  # what was given lies in memory that goes with the response

    def _about(self, net: Generator) -> ModelInfo:
        asked = (tensors.S3FD, GENERATORS[net], tensors.SEGMENTATION)
        configs = {model.name: self._config(model) for model in asked}
        stand_ins = tuple(name for name, text in configs.items() if _parameter(text, "checkpoint") == "stand-in")
        exports = [_parameter(configs[model.name], "export") for model in (tensors.S3FD, tensors.SEGMENTATION)]
        return ModelInfo(stand_ins, *exports)

    def _config(self, model: Model) -> str:
        try:
            return (self._repository / model.name / "config.pbtxt").read_text("utf-8")
        except OSError:  # not in a folder beside ours: then nothing is known of it
            return ""


class _AdaptiveBatch:
    """How many rows one call takes, by how long the last ones took."""

    def __init__(self, fewest: int, most: int) -> None:
        self._fewest, self._most = fewest, most
        self._rows = fewest

    async def work(self, count: int, call: Callable[[slice], Awaitable[list[Array]]]) -> list[Array]:
        """`count` rows, a piece after the other: an output is the pieces' outputs behind each other."""
        done: list[list[Array]] = []
        start = 0
        while start < count:
            rows = slice(start, min(count, start + self._rows))
            begun = time.monotonic()
            done.append(await call(rows))
            self._learn(rows.stop - rows.start, time.monotonic() - begun)
            start = rows.stop
        return done[0] if len(done) == 1 else [np.concatenate(parts) for parts in zip(*done, strict=True)]

    def _learn(self, rows: int, seconds: float) -> None:
        fitting = int(CALL_SECONDS * rows / max(seconds, 1e-6))
        # twice as many at most: one quick call says little
        self._rows = max(self._fewest, min(self._most, fitting, 2 * self._rows))


def _array(tensor: tensors.Tensor, given: TensorInput, model: Model) -> Array:
    """One array, in C order, of the tensor's type and shape, with a batch in front where the model has one."""
    if model.max_batch_size and isinstance(given, np.ndarray):
        tensor.check(given, batched=True)
    else:
        validated(tensor, given)
    return np.ascontiguousarray(stacked(given))


def _to_exception(pb: PbUtils, model: Model, error: Any) -> Exception:  # noqa: ANN401 - Triton publishes no types
    code = error.code()
    if code == pb.TritonError.INVALID_ARG:
        return InvalidInput(str(error.message()))
    if "Server not ready" in str(error.message()):
        return ShuttingDown("the service is being stopped")
    if "is not healthy" in str(error.message()):  # its process has died
        return Unavailable(f"{model.name} cannot be reached")
    if code in (pb.TritonError.UNAVAILABLE, pb.TritonError.NOT_FOUND, pb.TritonError.CANCELLED):
        return Unavailable(f"{model.name} cannot be reached")
    failed = AvatarError(f"{model.name} failed")
    failed.__cause__ = RuntimeError(str(error.message()))
    return failed


def _parameter(config: str, parameter: str) -> str:
    found = re.search(_PARAMETER_PATTERN.format(parameter), config)
    return found[1] if found else ""
