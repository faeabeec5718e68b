"""The Python-based onnxruntime backend, on a live server with small models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2 as pb

from embedded.server import Triton
from tests.support import tiny_models
from tests.support.triton_calls import Caller, caller, rejection

LAUNCHER_THREADS = 1
ATTEMPTS = 10  # to let requests arrive at the same moment
SECONDS = 60.0  # until a test gives up waiting for a line of the log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "triton.log"


@pytest.fixture(scope="module")
def triton_of_models(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Triton]:
    repository = tmp_path_factory.mktemp("models")
    tiny_models.add_arithmetic(repository)
    tiny_models.add_arithmetic(repository, "unbatched", batch=0)
    tiny_models.add_arithmetic(repository, "other_file", file="network.onnx")
    tiny_models.add_arithmetic(repository, "loose", batch=0)
    _change(repository, "loose", _loosen)
    tiny_models.add_rows(repository)
    _add_lookup(repository)
    tiny_models.add_arithmetic(repository, "four_threads")
    _change(repository, "four_threads", _set_four_threads)
    with Triton(repository, log=log, threads=LAUNCHER_THREADS) as triton:
        yield triton


@pytest.fixture(scope="module")
def call(triton_of_models: Triton) -> Iterator[Caller]:
    with caller(triton_of_models.grpc_address) as connection:
        yield connection


def _numbers(rows: int, start: float = 0.0) -> dict[str, np.ndarray]:
    x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) + np.float32(start)
    return {"x": x, "y": x * 2}


@pytest.mark.parametrize("model", ["arithmetic", "unbatched", "other_file"])
@pytest.mark.parametrize("rows", [1, 3])
def test_outputs_have_their_names(call: Caller, model: str, rows: int) -> None:
    inputs = _numbers(rows)
    outputs = call(model, inputs)
    assert set(outputs) == {"sum", "difference"}
    np.testing.assert_array_equal(outputs["sum"], inputs["x"] + inputs["y"])
    np.testing.assert_array_equal(outputs["difference"], inputs["x"] - inputs["y"])


@pytest.mark.parametrize(("megabytes", "rows_in_a_run"), [(1, 3), (4, 1)])
def test_rows_that_are_large_together_run_one_at_a_time(call: Caller, megabytes: int, rows_in_a_run: int) -> None:
    x = np.zeros((3, megabytes << 18), np.float32)
    np.testing.assert_array_equal(call("rows", {"x": x})["rows"], [[rows_in_a_run]] * 3)


@pytest.mark.parametrize("model", ["arithmetic", "unbatched"])
def test_only_the_requested_outputs_are_sent(call: Caller, model: str) -> None:
    inputs = _numbers(2)
    outputs = call(model, inputs, outputs=["difference"])
    assert set(outputs) == {"difference"}
    np.testing.assert_array_equal(outputs["difference"], inputs["x"] - inputs["y"])


def test_requests_for_different_outputs_share_a_run_and_get_their_own_rows(call: Caller) -> None:
    def call_model(i: int) -> None:
        inputs = {"row": np.full((1 + i % 3, 1), i, np.int64)}
        requested = ["value"] if i % 2 else ["value", "twice"]
        outputs = call("lookup", inputs, outputs=requested)
        assert set(outputs) == set(requested)
        np.testing.assert_array_equal(outputs["value"], np.full((1 + i % 3, 1), i * 10, np.float32))
        if "twice" in requested:
            np.testing.assert_array_equal(outputs["twice"], np.full((1 + i % 3, 1), i * 20, np.float32))

    def runs_of_24() -> int:
        before = _runs(call, "lookup")
        _concurrently(call_model, 24)
        return _runs(call, "lookup") - before

    assert any(runs_of_24() < 24 for _ in range(ATTEMPTS))


def test_a_request_that_the_graph_rejects_does_not_affect_the_others_of_its_run(call: Caller) -> None:
    def call_model(i: int) -> None:
        inputs = {"row": np.full((1, 1), i if i % 4 else 1000, np.int64)}
        if i % 4:
            np.testing.assert_array_equal(call("lookup", inputs)["value"], [[i * 10]])
        else:
            status, message = rejection(call, "lookup", inputs)
            assert status == "StatusCode.INVALID_ARGUMENT"
            assert message.startswith("lookup: ")
            assert "out of data bounds" in message
            assert "\n" not in message

    _concurrently(call_model, 16)


def test_shapes_that_the_graph_rejects_are_an_error_of_the_caller(call: Caller) -> None:
    wide = np.zeros((1, 5), np.float32)
    status, message = rejection(call, "loose", {"x": wide, "y": wide})
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message.startswith("loose: Got invalid dimensions for input: ")
    assert "\n" not in message


def test_a_failure_inside_the_graph_is_reported_in_the_log_only(call: Caller, log: Path) -> None:
    three, two = _numbers(3), _numbers(2)
    answer = rejection(call, "unbatched", {"x": three["x"], "y": two["y"]})
    assert answer == ("StatusCode.INTERNAL", "internal error in unbatched")
    lines = _lines(log, "unbatched: Traceback")
    assert len(lines) == 1
    assert "broadcast" in lines[0]


def _lines(log: Path, text: str) -> list[str]:
    """Return the lines of the log that contain the text; wait for the first, because models log in the background."""
    end = time.monotonic() + SECONDS
    while not (lines := [line for line in log.read_text().splitlines() if text in line]) and time.monotonic() < end:
        time.sleep(0.05)
    return lines


def test_threads_come_from_the_launcher_unless_the_model_has_its_own_number(triton_of_models: Triton) -> None:
    # the session uses the stub's thread and starts the others itself
    threads = {name: _threads_of(triton_of_models, name) for name in ("arithmetic", "four_threads")}
    assert threads["four_threads"] - threads["arithmetic"] == 4 - LAUNCHER_THREADS


def _concurrently(call_model: Callable[[int], None], count: int) -> None:
    barrier = threading.Barrier(count)

    def wait_and_call(i: int) -> None:
        barrier.wait()
        call_model(i)

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(wait_and_call, i) for i in range(count)]:
            done.result()


def _runs(call: Caller, model: str) -> int:
    return sum(call.batches(model).values())


def _add_lookup(repository: Path) -> None:
    """Add a model that maps `row` INT64 [1] to `value` FP32 [1], ten times the row, and to `twice` of that.

    The graph fails for a row over 63. The queue delay lets concurrent requests share a run.
    """
    config = pb.ModelConfig(name="lookup", backend="onnxruntime", max_batch_size=64)
    config.input.add(name="row", data_type=pb.TYPE_INT64, dims=[1])
    config.output.add(name="value", data_type=pb.TYPE_FP32, dims=[1])
    config.output.add(name="twice", data_type=pb.TYPE_FP32, dims=[1])
    config.instance_group.add(count=1)
    config.dynamic_batching.max_queue_delay_microseconds = 100_000
    table = helper.make_tensor("table", TensorProto.FLOAT, [64], [i * 10.0 for i in range(64)])
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "row"], ["value"]), helper.make_node("Add", ["value"] * 2, ["twice"])],
        "lookup",
        [helper.make_tensor_value_info("row", TensorProto.INT64, ["n", 1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("value", "twice")],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tiny_models.write(repository, config) / "model.onnx")


def _change(repository: Path, model: str, change: Callable[[pb.ModelConfig], None]) -> None:
    path = repository / model / "config.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    change(config)
    path.write_text(text_format.MessageToString(config))


def _loosen(config: pb.ModelConfig) -> None:
    for tensor in (*config.input, *config.output):
        tensor.dims[1] = -1


def _set_four_threads(config: pb.ModelConfig) -> None:
    config.parameters["intra_op_thread_count"].string_value = "4"


def _threads_of(triton: Triton, model: str) -> int:
    """Return the number of threads of a model's process: the child of the server whose command line names it."""
    for children in Path(f"/proc/{triton.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if f"/{model}/1/" in Path(f"/proc/{child}/cmdline").read_text():
                return len(list(Path(f"/proc/{child}/task").iterdir()))
    raise AssertionError(f"no process for {model}")
