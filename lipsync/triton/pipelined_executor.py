"""Answers requests from slots: `execute` copies their rows and starts the network, a thread sends the responses.

`execute` returns None, and each request is answered through its response sender, which Triton's Python backend allows
in models that are not decoupled, too (since 24.06). So the next batch forms and is copied while this one runs.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from ..arrays import Array
from ..errors import InvalidInput
from . import sticky
from .backend_config import BackendConfig
from .pb_utils import InferenceRequest, InferenceResponse, PbUtils, ResponseSender
from .python_backend import read_inputs
from .python_model import error_response
from .slots import Slot, SlotPipeline

CLOSE_SECONDS = 5.0  # for the batches in flight when the model is unloaded: two, of milliseconds on a GPU

EndProcess = Callable[[str, BaseException], NoReturn]


@dataclass(frozen=True)
class _Part:
    """The rows of one request in a slot."""

    sender: ResponseSender
    outputs: tuple[str, ...]
    start: int
    stop: int


@dataclass
class _Run:
    """What one slot answers."""

    parts: list[_Part] = field(default_factory=list)
    error: Exception | None = None  # of the launch

    @property
    def rows(self) -> int:
        return self.parts[-1].stop if self.parts else 0


class PipelinedExecutor:
    """Answers the requests of one network whose rows have a fixed size.

    Args:
        pb_utils: Triton's module.
        config: the model's configuration; `config.fixed` is true.
        slots: their buffers have `config.max_batch_size` rows.
        end_process: ends the process after an error that makes it useless.
    """

    def __init__(
        self,
        pb_utils: PbUtils,
        config: BackendConfig,
        slots: Sequence[Slot],
        end_process: EndProcess = sticky.end_process,
    ) -> None:
        self._pb, self._config, self._end_process = pb_utils, config, end_process
        self._pipeline: SlotPipeline[_Run] = SlotPipeline(slots, self._finish, self._log)

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        """Copy the requests' rows into slots and start the network; waits while all slots are in use."""
        for group in _groups(self._readable(requests), self._config.max_batch_size):
            slot = self._pipeline.acquire()
            run = _Run()
            try:
                for request, arrays in group:
                    self._copy(request, arrays, slot, run)
            except BaseException:
                self._pipeline.release(slot)  # otherwise the next calls would wait for it forever
                raise
            try:
                slot.launch(run.rows)
            except Exception as error:
                self._end_if_lost(error)
                run.error = error
            self._pipeline.submit(slot, run)

    def close(self) -> None:
        """Answer what is in flight and end the thread that answers."""
        if not self._pipeline.close(CLOSE_SECONDS):
            self._pb.Logger.log_warn(
                f"{self._config.name}: unloaded with a batch in flight for over {CLOSE_SECONDS:.0f} s"
            )

    def _readable(self, requests: Sequence[InferenceRequest]) -> Iterator[tuple[InferenceRequest, dict[str, Array]]]:
        """Yield the requests with their inputs; answer those whose inputs are wrong."""
        for request in requests:
            try:
                yield request, self._checked(read_inputs(self._config, request))
            except Exception as error:
                self._send(request.get_response_sender(), error_response(self._pb, self._config.name, error))

    def _checked(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """Return inputs that fit into a slot. Triton compares them with the config, too; a slot depends on it."""
        rows = len(arrays[self._config.inputs[0]])
        for spec in self._config.input_specs:
            array = arrays[spec.name]
            if array.shape != (rows, *spec.shape) or array.dtype != spec.dtype:
                expected = f"{spec.dtype} {[rows, *spec.shape]} expected"
                raise InvalidInput(f"{spec.name}: {expected}, got {array.dtype} {list(array.shape)}")
        if not 1 <= rows <= self._config.max_batch_size:
            raise InvalidInput(f"1 to {self._config.max_batch_size} rows expected, got {rows}")
        return arrays

    def _copy(self, request: InferenceRequest, arrays: Mapping[str, Array], slot: Slot, run: _Run) -> None:
        """Copy a request's rows after those that the slot has. The request's memory is gone after `execute`."""
        start = run.rows
        stop = start + len(arrays[self._config.inputs[0]])
        for name in self._config.inputs:
            np.copyto(slot.inputs[name][start:stop], arrays[name])
        requested = set(request.requested_output_names())
        outputs = tuple(name for name in self._config.outputs if name in requested)
        run.parts.append(_Part(request.get_response_sender(), outputs, start, stop))

    def _finish(self, slot: Slot, run: _Run) -> None:
        """Wait for a slot and answer its requests."""
        try:
            if run.error:
                raise run.error
            slot.wait()
        except Exception as error:
            self._end_if_lost(error)
            self._answer_each(slot, run, error)
        else:
            for part in run.parts:
                self._answer(part, slot, part.start)

    def _answer_each(self, slot: Slot, run: _Run, error: Exception) -> None:
        """Run the requests of a failed batch one by one, so that an error stays with its request."""
        if len(run.parts) == 1:
            self._send(run.parts[0].sender, error_response(self._pb, self._config.name, error))
            return
        self._pb.Logger.log_warn(
            f"{self._config.name}: a batch of {len(run.parts)} requests failed, running each alone: {error}"
        )
        for part in run.parts:
            try:
                # to the front, where the network reads; only rows of requests that were answered are overwritten
                for buffer in slot.inputs.values():
                    buffer[: part.stop - part.start] = buffer[part.start : part.stop]
                slot.launch(part.stop - part.start)
                slot.wait()
            except Exception as its_own:
                self._end_if_lost(its_own)
                self._send(part.sender, error_response(self._pb, self._config.name, its_own))
            else:
                self._answer(part, slot, 0)

    def _answer(self, part: _Part, slot: Slot, start: int) -> None:
        """Send a request's outputs, which begin at row `start` of the slot's buffers."""
        stop = start + part.stop - part.start
        tensors = [self._pb.Tensor(name, slot.outputs[name][start:stop]) for name in part.outputs]
        self._send(part.sender, self._pb.InferenceResponse(tensors))

    def _send(self, sender: ResponseSender, response: InferenceResponse) -> None:
        """Send the one response of a request. Its data is copied when this returns."""
        try:
            sender.send(response, flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:  # the server is ending; the other requests of the batch are still answered
            self._log(error)

    def _end_if_lost(self, error: Exception) -> None:
        if sticky.is_sticky(error):
            self._end_process(self._config.name, error)

    def _log(self, error: Exception) -> None:
        self._pb.Logger.log_error(f"{self._config.name}: {''.join(traceback.format_exception(error))}")


def _groups(
    requests: Iterator[tuple[InferenceRequest, dict[str, Array]]], most: int
) -> Iterator[list[tuple[InferenceRequest, dict[str, Array]]]]:
    """Yield the requests in groups of at most `most` rows. The dynamic batcher makes one group of them already."""
    group: list[tuple[InferenceRequest, dict[str, Array]]] = []
    total = 0
    for request, arrays in requests:
        rows = len(next(iter(arrays.values())))
        if group and total + rows > most:
            yield group
            group, total = [], 0
        group.append((request, arrays))
        total += rows
    if group:
        yield group
