"""Whether the models answer: tiny real calls, shared by all who ask at the same time and remembered for seconds.

Triton reports a model as ready after its process died or hung. Only a real call shows it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable

import numpy as np

from lipsync import tensors
from lipsync.arrays import Array
from lipsync.errors import InvalidInput
from lipsync.tensors import Model, Tensor

from ..errors import AvatarError, ModelLost, ResourceFault, Unavailable

REMEMBERED_SECONDS = 5.0  # for which an answer of a model, or a passed check, counts
CALL_SECONDS = 3.0  # that a tiny call may take
# A model that does not answer within CALL_SECONDS may be busy with a long batch. It counts as lost if it has not
# answered any call for this time; the watcher of the server (docs/adr/0023) replaces one that hangs before that.
SILENT_SECONDS = 20.0

# Models with a process or a network of their own that every form may need.
NEEDED = (
    tensors.MEL_SPECTROGRAM,
    tensors.S3FD,
    tensors.FACE_NMS,
    tensors.WAV2LIP,
    tensors.SEGMENTATION,
)
# Models that have worked when an ensemble has answered.
PARTS = {tensors.DETECT_FACES.name: (tensors.S3FD, tensors.FACE_NMS)}

_SIDE = 64  # pixels of the tiny image
_TINY_SHAPES = {"audio": (3200,), "frames": (1, _SIDE, _SIDE, 3), "image": (_SIDE, _SIDE, 3)}
_TINY_VALUES = {"fps": np.array([25.0]), "boxes": np.array([[0, 0, _SIDE, _SIDE]], np.int32)}

_MEMORY_FULL = "Failed to increase the shared memory pool size"
_LOST = re.compile(r"Stub process '(?P<model>[^']+?)_\d+_\d+' is not healthy")


def tiny_inputs(model: Model) -> list[tuple[Tensor, Array]]:
    """Return the smallest useful inputs of a model: its required tensors, each with an array."""
    inputs = []
    for tensor in (tensor for tensor in model.inputs if not tensor.optional):
        if tensor.name in _TINY_VALUES and model is not tensors.FACE_NMS:
            array = _TINY_VALUES[tensor.name]
        else:
            shape = _TINY_SHAPES.get(tensor.name) or tuple(max(1, size) for size in tensor.shape)
            array = np.zeros(shape, tensor.numpy)
        inputs.append((tensor, array[None] if model.max_batch_size else array))
    return inputs


def lost_model(message: str) -> str:
    """Return the model whose process died or is stopped, if this error of Triton says so; else an empty string."""
    found = _LOST.search(message)
    return found["model"] if found else ""


def fault_of(message: str) -> Unavailable | None:
    """Return what is wrong with the server, if this error of Triton says so: calls with other inputs fail, too."""
    if model := lost_model(message):
        return ModelLost(f"{model} cannot be reached: its process died or is stopped")
    if _MEMORY_FULL in message:
        return ResourceFault("the shared memory of Triton is full")
    return None


class Readiness:
    """What is known of the models of one server. For one event loop."""

    def __init__(self, call: Callable[[Model], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet; `call` makes a tiny call, with a deadline, and raises Unavailable."""
        self._call, self._clock = call, clock
        self._answered: dict[str, float] = {}  # when each model answered last
        self._check: asyncio.Task[None] | None = None

    def answered(self, model: Model) -> None:
        """Note that a model has answered; an ensemble has if its parts have."""
        for part in PARTS.get(model.name, (model,)):
            self._answered[part.name] = self._clock()

    def failed(self) -> None:
        """Forget what is known: the next check asks every model."""
        self._answered.clear()

    async def check(self, before: Callable[[], Awaitable[None]], generators: Iterable[Model] = ()) -> None:
        """Return if every model answers or has answered within seconds; raise Unavailable with the name of one.

        `before` is a cheaper check that comes first, and is not remembered. Checks at the same time are one.
        """
        models = [*NEEDED, *(model for model in generators if model not in NEEDED)]
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._ask(before, models))
            self._check.add_done_callback(_retrieve)
        await asyncio.shield(self._check)

    async def _ask(self, before: Callable[[], Awaitable[None]], models: Iterable[Model]) -> None:
        await before()
        asked = [model for model in models if self._age(model) >= REMEMBERED_SECONDS]
        errors = await asyncio.gather(*map(self._ask_model, asked), return_exceptions=True)
        for error in filter(None, errors):
            raise error

    async def _ask_model(self, model: Model) -> None:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._call(model)
        except TimeoutError:
            if self._age(model) >= SILENT_SECONDS:
                raise Unavailable(f"the models are not ready: {model.name} does not answer") from None
        except InvalidInput:  # the model answers; such a small input is not for it
            self.answered(model)
        except AvatarError as error:
            kind = ModelLost if isinstance(error, ModelLost) else Unavailable  # the metrics count them apart
            raise kind(f"the models are not ready: {error}") from error
        else:
            self.answered(model)

    def _age(self, model: Model) -> float:
        return self._clock() - self._answered.get(model.name, float("-inf"))


def _retrieve(check: asyncio.Task[None]) -> None:
    """Take note of the error of a check whose callers have all left."""
    if not check.cancelled():
        check.exception()
