"""The Python-based openvino and pytorch backends, on a live server with small models.

The tests of the onnxruntime backend cover the code that they share with it (batches, errors).
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from embedded.errors import StartFailed
from embedded.server import Triton
from tests.support import tiny_models
from tests.support.triton_calls import Caller, caller, rejection

BACKENDS = ("openvino", "pytorch")
THREADS = {"openvino": "INFERENCE_NUM_THREADS", "pytorch": "INTRA_OP_THREAD_COUNT"}
ATTEMPTS = 10  # to let requests arrive at the same moment
FILES = {"openvino": "model.xml", "pytorch": "model.pt"}
every_backend = pytest.mark.parametrize("backend", BACKENDS)


class Arithmetic(torch.nn.Module):
    """Return the sum and the difference of `x` and `y` [n,w], like the ONNX model of `tiny_models`."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + y, x - y


def add(
    repository: Path,
    backend: str,
    name: str = "",
    *,
    open_width: bool = True,
    batch: int = 8,
    parameters: dict[str, str] | None = None,
) -> Path:
    """Add the arithmetic for a backend; its config and, if `open_width`, its IR accept any width. Return its file.

    A config of more than 8 rows has rows of 4 numbers.
    """
    onnx = tiny_models.add_arithmetic(repository, name or backend, batch=batch, file="source.onnx")
    folder = onnx.parent
    config = text_format.Parse((folder.parent / "config.pbtxt").read_text(), pb.ModelConfig())
    config.backend, config.default_model_filename = backend, ""
    config.dynamic_batching.max_queue_delay_microseconds = 50_000
    for tensor in (*config.input, *config.output):
        tensor.dims[0] = -1 if batch <= 8 else tiny_models.WIDTH
    for key, value in (parameters or {}).items():
        config.parameters[key].string_value = value
    (folder.parent / "config.pbtxt").write_text(text_format.MessageToString(config))
    path = folder / FILES[backend]
    if backend == "openvino":
        model = openvino.Core().read_model(onnx)
        if open_width:
            model.reshape({name: [-1, -1] for name in ("x", "y")})
        openvino.save_model(model, path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            traced = torch.jit.trace(Arithmetic(), (torch.ones(2, 4), torch.ones(2, 4)))  # type: ignore[no-untyped-call]
            torch.jit.save(traced, path)
    onnx.unlink()
    return path


@pytest.fixture(scope="module")
def triton_of_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    repository = tmp_path_factory.mktemp("models")
    for backend in BACKENDS:
        add(repository, backend)
        add(repository, backend, f"{backend}_three", parameters={THREADS[backend]: "3"})
    add(repository, "openvino", "openvino_fixed", open_width=False)
    divided = {THREADS["openvino"]: "3"}
    add(repository, "openvino", "openvino_divided", open_width=False, batch=32, parameters=divided)
    with Triton(repository, threads=1) as triton:
        yield triton


@pytest.fixture(scope="module")
def call(triton_of_models: Triton) -> Iterator[Caller]:
    with caller(triton_of_models.grpc_address) as connection:
        yield connection


def numbers(rows: int, width: int = 4, start: float = 0) -> dict[str, np.ndarray]:
    x = np.arange(rows * width, dtype=np.float32).reshape(rows, width) + np.float32(start)
    return {"x": x, "y": x * 2}


@every_backend
@pytest.mark.parametrize(("rows", "width"), [(1, 4), (3, 4), (2, 7), (8, 1)])
def test_outputs_have_their_names_for_every_size(call: Caller, backend: str, rows: int, width: int) -> None:
    inputs = numbers(rows, width)
    outputs = call(backend, inputs)
    assert set(outputs) == {"sum", "difference"}
    np.testing.assert_array_equal(outputs["sum"], inputs["x"] + inputs["y"])
    np.testing.assert_array_equal(outputs["difference"], inputs["x"] - inputs["y"])


@every_backend
def test_only_the_requested_outputs_are_sent(call: Caller, backend: str) -> None:
    assert set(call(backend, numbers(2), outputs=["difference"])) == {"difference"}


@every_backend
def test_concurrent_requests_share_runs_and_get_their_own_rows(call: Caller, backend: str) -> None:
    def call_model(i: int) -> None:
        inputs = numbers(1 + i % 3, start=100 * i)
        barrier.wait()
        np.testing.assert_array_equal(call(backend, inputs)["sum"], inputs["x"] * 3)

    def runs_of_twelve() -> int:
        before = sum(call.batches(backend).values())
        with ThreadPoolExecutor(12) as pool:
            for done in [pool.submit(call_model, i) for i in range(12)]:
                done.result()
        return sum(call.batches(backend).values()) - before

    barrier = threading.Barrier(12)
    assert any(runs_of_twelve() < 12 for _ in range(ATTEMPTS))


def test_shapes_that_a_module_rejects_are_an_error_of_the_caller(call: Caller) -> None:
    status, message = rejection(call, "pytorch", {"x": numbers(1, 4)["x"], "y": numbers(1, 5)["y"]})
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message.startswith("pytorch: x [1, 4], y [1, 5]: The size of tensor a (4) must match")
    assert "\n" not in message
    np.testing.assert_array_equal(call("pytorch", numbers(1))["sum"], numbers(1)["x"] * 3)


def test_shapes_that_an_ir_does_not_have_are_an_error_of_the_caller(call: Caller) -> None:
    status, message = rejection(call, "openvino_fixed", numbers(2, 5))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message == "openvino_fixed: x: [?,4] expected, got [2, 5]"
    np.testing.assert_array_equal(call("openvino_fixed", numbers(2))["sum"], numbers(2)["x"] * 3)


@pytest.mark.parametrize("rows", [1, 5, 6, 31, 32])
def test_a_batch_that_is_divided_among_the_cores_keeps_its_rows_in_order(call: Caller, rows: int) -> None:
    inputs = numbers(rows)
    for _ in range(2):  # the parts use the same memory again
        outputs = call("openvino_divided", inputs)
        np.testing.assert_array_equal(outputs["sum"], inputs["x"] * 3)
        np.testing.assert_array_equal(outputs["difference"], -inputs["x"])
    assert set(call("openvino_divided", inputs, outputs=["difference"])) == {"difference"}


def test_batches_that_are_divided_while_others_run_keep_their_rows(call: Caller) -> None:
    """A core that is done with its part goes on with the next batch, before the other part has ended."""

    def call_model(i: int) -> None:
        inputs = numbers(1 + i % 32, start=100 * i)
        outputs = call("openvino_divided", inputs)
        np.testing.assert_array_equal(outputs["sum"], inputs["x"] * 3)
        np.testing.assert_array_equal(outputs["difference"], -inputs["x"])

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(call_model, range(120)))


@every_backend
def test_large_inputs_run_and_do_not_change_the_network(call: Caller, backend: str) -> None:
    large = numbers(3, 1 << 20)
    np.testing.assert_array_equal(call(backend, large)["difference"], -large["x"])
    np.testing.assert_array_equal(call(backend, numbers(1))["sum"], numbers(1)["x"] * 3)


@pytest.fixture(scope="module")
def reasons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a server says about each of its models, none of which can be loaded."""
    repository = tmp_path_factory.mktemp("broken")
    for backend in BACKENDS:
        add(repository, backend, f"{backend}_without_file").unlink()
        add(repository, backend, f"{backend}_many", parameters={THREADS[backend]: "many"})
    config = add(repository, "openvino", "total").parents[1] / "config.pbtxt"
    config.write_text(config.read_text().replace('"sum"', '"total"'))
    with pytest.raises(StartFailed) as failed:
        Triton(repository).start()
    return dict(each.split(" does not load: ", 1) for each in f"; {failed.value}".split("; model ")[1:])


@every_backend
def test_a_missing_file_is_reported_by_name(reasons: dict[str, str], backend: str) -> None:
    assert f"{FILES[backend]} is missing" in reasons[f"{backend}_without_file"]


def test_a_name_that_the_network_lacks_is_reported(reasons: dict[str, str]) -> None:
    assert "config.pbtxt names output ['total']" in reasons["total"]


@every_backend
def test_a_parameter_that_is_not_a_number_is_reported_by_name(reasons: dict[str, str], backend: str) -> None:
    assert f"parameter {THREADS[backend]}: a number expected, got 'many'" in reasons[f"{backend}_many"]
