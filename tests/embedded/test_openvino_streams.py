"""Slots of the openvino backend whose parts fail: no part still uses the buffers of a slot that is free again."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import embedded

ROWS, COUNT = 16, 2
PART_SECONDS = 0.2
MODEL = Path(str(embedded.__file__)).parent / "backends" / "openvino" / "model.py"


class Part:
    """A request of OpenVINO that takes a while, and fails where it is told to."""

    def __init__(self, running: set[Part]) -> None:
        self.bound: dict[str, Any] = {}
        self.fails_to_bind = self.fails_to_run = False
        self._running = running

    def set_tensor(self, name: str, tensor: Any) -> None:
        if self.fails_to_bind:
            raise RuntimeError("cannot bind")
        self.bound[name] = tensor.data

    def start_async(self) -> None:
        self._running.add(self)

    def wait(self) -> None:
        time.sleep(PART_SECONDS)
        self._running.discard(self)
        if self.fails_to_run:
            raise RuntimeError("cannot run")
        self.bound["y"][:] = self.bound["x"]

    def infer(self, *, share_outputs: bool) -> None:
        assert share_outputs
        self.bound["y"][:] = self.bound["x"]


class Net:
    """A compiled network that makes such requests."""

    def __init__(self) -> None:
        self.running: set[Part] = set()
        self.parts: list[Part] = []

    def create_infer_request(self) -> Part:
        self.parts.append(Part(self.running))
        return self.parts[-1]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the backend, outside of Triton."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)  # as the module itself does
    spec = importlib.util.spec_from_file_location("openvino_backend", MODEL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def divided() -> Net:
    return Net()


@pytest.fixture
def slot(backend: ModuleType, divided: Net) -> Iterator[Any]:
    tensors = {
        name: [SimpleNamespace(name=tensor, shape=(2,), dtype=np.dtype(np.float32))]
        for name, tensor in (("input_specs", "x"), ("output_specs", "y"))
    }
    config = SimpleNamespace(max_batch_size=ROWS, **tensors)
    made = backend.StreamSlot(Net(), divided, backend.Streams(COUNT), config)
    made.inputs["x"][:] = np.arange(2 * ROWS).reshape(ROWS, 2)
    yield made
    assert not divided.running


@pytest.mark.parametrize("rows", [1, 3, 4, 7, ROWS])
def test_the_parts_cover_the_batch(slot: Any, rows: int) -> None:
    slot.launch(rows)
    slot.wait()
    np.testing.assert_array_equal(slot.outputs["y"][:rows], slot.inputs["x"][:rows])
    assert not slot.outputs["y"][rows:].any()


@pytest.mark.parametrize("place", range(COUNT))
def test_a_part_that_fails_is_told_after_all_parts_have_ended(slot: Any, divided: Net, place: int) -> None:
    divided.parts[place].fails_to_run = True
    slot.launch(ROWS)
    with pytest.raises(RuntimeError, match="cannot run"):
        slot.wait()
    assert not divided.running
    divided.parts[place].fails_to_run = False
    slot.launch(ROWS)
    slot.wait()
    np.testing.assert_array_equal(slot.outputs["y"], slot.inputs["x"])


@pytest.mark.parametrize("place", range(COUNT))
def test_a_launch_that_fails_leaves_no_part_running(slot: Any, divided: Net, place: int) -> None:
    divided.parts[place].fails_to_bind = True
    with pytest.raises(RuntimeError, match="cannot bind"):
        slot.launch(ROWS)
    assert not divided.running
    slot.wait()


def test_a_part_that_cannot_be_started_waits_for_those_that_run(
    slot: Any, divided: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = slot._streams.start, threading.Event()

    def start_one(request: Part) -> Any:
        if started.is_set():
            raise RuntimeError("can't start new thread")
        started.set()
        return start(request)

    monkeypatch.setattr(slot._streams, "start", start_one)
    with pytest.raises(RuntimeError, match="can't start"):
        slot.launch(ROWS)
    assert not divided.running
