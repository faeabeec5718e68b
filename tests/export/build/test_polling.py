"""New exports are published while Triton polls the repository and processes requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from google.protobuf import text_format
from onnx import helper
from tritonclient.grpc import model_config_pb2 as pb

from embedded.server import Triton
from export.build import versions
from export.files import atomic_write
from tests.support import tiny_models
from tests.support.triton_calls import Caller, caller

PAUSE = 0.003  # seconds between two calls, which leave the server time to load
SECONDS = 60.0  # until a test gives up waiting for a new version; Triton polls every second


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    tiny_models.add_arithmetic(folder, file="model.onnx")
    return folder


@pytest.fixture
def call(repository: Path) -> Iterator[Caller]:
    with Triton(repository, poll=1) as triton, caller(triton.grpc_address) as connection:
        yield connection


class Calling:
    """Send calls from another thread, hundreds per second, until the block ends, and keep every distinct result."""

    def __init__(self, call: Caller) -> None:
        self._call, self._stopped, self.failed = call, threading.Event(), list[Exception]()
        self.results: list[float] = []
        self._thread = threading.Thread(target=self._run)

    def wait_for(self, result: float) -> None:
        deadline = time.monotonic() + SECONDS
        while result not in self.results and time.monotonic() < deadline and not self.failed:
            time.sleep(0.05)

    def __enter__(self) -> Calling:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        ones = np.ones((1, tiny_models.WIDTH), np.float32)
        while not self._stopped.wait(PAUSE):
            try:
                result = float(self._call("arithmetic", {"x": ones, "y": ones})["sum"][0, 0])
            except Exception as error:
                self.failed.append(error)
                return
            if result not in self.results:
                self.results.append(result)


def stage(repository: Path, name: str) -> Path:
    folder = repository.parent / name
    folder.mkdir()
    return folder


def other_arithmetic(repository: Path) -> onnx.ModelProto:
    """Return the model with a product as its `sum`: 1 for two ones instead of 2."""
    proto = onnx.load(repository / "arithmetic" / "1" / "model.onnx")
    first = next(node for node in proto.graph.node if node.output[0] == "sum")
    first.CopyFrom(helper.make_node("Mul", ["x", "y"], ["sum"]))
    return proto


def test_a_new_version_is_served_without_a_call_failing(repository: Path, call: Caller) -> None:
    with Calling(call) as calling:
        calling.wait_for(2)
        staged = stage(repository, "staged")
        onnx.save(other_arithmetic(repository), staged / "model.onnx")
        versions.publish(staged, repository / "arithmetic")
        calling.wait_for(1)
    assert calling.failed == []
    assert calling.results == [2, 1]


def test_a_new_version_of_another_format_is_served_without_a_call_failing(repository: Path, call: Caller) -> None:
    config = repository / "arithmetic" / "config.pbtxt"
    with Calling(call) as calling:
        calling.wait_for(2)
        staged = stage(repository, "staged")
        onnx.save(other_arithmetic(repository), repository.parent / "other.onnx")
        openvino.save_model(openvino.Core().read_model(repository.parent / "other.onnx"), staged / "model.xml")
        versions.publish(staged, repository / "arithmetic")
        # the longest time that the new version can have the old config; the server has polled by then
        time.sleep(2.5)
        changed = text_format.Parse(config.read_text(), pb.ModelConfig())
        changed.backend, changed.default_model_filename = "openvino", "model.xml"
        with atomic_write(config) as temporary:
            temporary.write_text(text_format.MessageToString(changed))
        calling.wait_for(1)
    assert calling.failed == []
    assert calling.results == [2, 1]
