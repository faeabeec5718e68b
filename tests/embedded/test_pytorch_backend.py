"""The Python-based pytorch backend with slots, on a live server: many callers, cancelled ones, errors, and the end."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from embedded.errors import ModelDied
from embedded.server import Triton
from lipsync.tensors import WAV2LIP
from tests.support import tiny_models
from tests.support.torch_devices import DEVICES
from tests.support.triton_calls import Caller, caller, rejection

MOST = 32
TYPES = {np.uint8: pb.TYPE_UINT8, np.float32: pb.TYPE_FP32, np.int64: pb.TYPE_INT64}
KINDS = {"cpu": pb.ModelInstanceGroup.KIND_CPU, "cuda": pb.ModelInstanceGroup.KIND_GPU}
SECONDS = 60.0
SIDE, PRODUCTS = 768, 8  # of a matrix, and how often it is multiplied


class Mouths(torch.nn.Module):
    """A tiny Wav2Lip: the table's tensors, a convolution, and the loudness of the speech."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, face: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
        loudness = torch.sigmoid(mel.mean((1, 2)))[:, None, None, None]
        image = self.layer((face.float() / 255).permute(0, 3, 1, 2)) * loudness
        return (torch.sigmoid(image) * 255).permute(0, 2, 3, 1).to(torch.uint8)


class Lookup(torch.nn.Module):
    """Return ten times the row, after some tenths of a second of arithmetic; fail for a row over 63."""

    table: torch.Tensor
    matrix: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(64, dtype=torch.float32) * 10)
        self.register_buffer("matrix", torch.eye(SIDE))

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        work = self.matrix * (row.float().mean() * 0 + 1)  # depends on the input, so that it is not left out
        for _ in range(PRODUCTS):
            work = work @ self.matrix
        return self.table[row] * work[0, 0]


def _add(
    repository: Path, name: str, net: torch.nn.Module, sample: dict[str, np.ndarray], device: str, **parameters: str
) -> None:
    """Add a net whose inputs and outputs are those of a traced sample."""
    tensors = tuple(torch.from_numpy(array) for array in sample.values())
    config = pb.ModelConfig(name=name, backend="pytorch", max_batch_size=MOST)
    for tensor, array in sample.items():
        config.input.add(name=tensor, data_type=TYPES[array.dtype.type], dims=array.shape[1:])
    path = tiny_models.write(repository, config) / "model.pt"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(net.eval(), tensors, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, path)
        result = traced(*tensors).numpy()
    config.output.add(name="mouth", data_type=TYPES[result.dtype.type], dims=result.shape[1:])
    config.instance_group.add(count=1, kind=KINDS[device])
    config.dynamic_batching.max_queue_delay_microseconds = 5000
    for key, value in {"PIPELINE": "yes", **parameters}.items():
        config.parameters[key].string_value = value
    warm_up = config.model_warmup.add(name="one row", batch_size=1, count=2)
    for tensor in config.input:
        warm_up.inputs[tensor.name].CopyFrom(
            pb.ModelWarmup.Input(data_type=tensor.data_type, dims=tensor.dims, zero_data=True)
        )
    tiny_models.write(repository, config)


def _faces(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(seed)
    face, mel = (tensor.shape for tensor in WAV2LIP.inputs)
    return {
        "face": noise.integers(0, 256, (rows, *face), np.uint8),
        "mel": noise.uniform(-4, 4, (rows, *mel)).astype(np.float32),
    }


def _row(value: int) -> dict[str, np.ndarray]:
    return {"row": np.full((1, 1), value, np.int64)}


@pytest.fixture(scope="module", params=DEVICES)
def triton_of_nets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    folder, device = tmp_path_factory.mktemp("nets"), request.param
    _add(folder, "mouths", Mouths(), _faces(2), device, BUCKETS="1,8")
    _add(folder, "lookup", Lookup(), _row(1), "cpu")  # on a GPU such a failure would end the process
    with Triton(folder, threads=1, log=folder / "triton.log") as triton:
        yield triton


@pytest.fixture(scope="module")
def call(triton_of_nets: Triton) -> Iterator[Caller]:
    with caller(triton_of_nets.grpc_address) as connection:
        yield connection


@pytest.fixture(scope="module")
def mouths() -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """The net itself, in this process."""
    net = Mouths().eval()

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            return net(*(torch.from_numpy(array) for array in inputs.values())).numpy()

    return run


def _concurrently(task: Callable[[int], None], count: int) -> None:
    barrier = threading.Barrier(count)

    def wait_and_run(i: int) -> None:
        barrier.wait()
        task(i)

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(wait_and_run, i) for i in range(count)]:
            done.result()


def test_64_callers_with_batches_of_mixed_sizes_get_their_own_rows(
    call: Caller, mouths: Callable[[dict[str, np.ndarray]], np.ndarray]
) -> None:
    sizes = [1, 2, 3, 5, 8, 13, 31, MOST]

    def call_and_compare(i: int) -> None:
        inputs = _faces(sizes[i % len(sizes)], i)
        # a batch of another size may round differently
        np.testing.assert_allclose(call("mouths", inputs)["mouth"].astype(int), mouths(inputs), atol=1)

    before = call.batches("mouths")
    _concurrently(call_and_compare, 64)
    runs = {size: count - before.get(size, 0) for size, count in call.batches("mouths").items()}
    assert sum(size * count for size, count in runs.items()) == 8 * sum(sizes)
    assert sum(runs.values()) < 64
    assert max(runs) <= MOST


def test_a_request_on_which_the_network_fails_does_not_affect_the_others(call: Caller) -> None:
    def call_model(i: int) -> None:
        if i % 4:
            np.testing.assert_array_equal(call("lookup", _row(i))["mouth"], [[i * 10]])
        else:
            assert rejection(call, "lookup", _row(1000)) == ("StatusCode.INTERNAL", "internal error in lookup")

    _concurrently(call_model, 8)


def test_cancelled_calls_take_nothing_from_the_others(call: Caller, triton_of_nets: Triton) -> None:
    client = InferenceServerClient(triton_of_nets.grpc_address)
    outcomes: dict[int, object] = {}
    try:
        calls = [_start(client, value, outcomes) for value in range(6)]
        time.sleep(0.1)  # one runs, others wait
        for i in (0, 1, 3):
            calls[i].cancel()
        np.testing.assert_array_equal(call("lookup", _row(9))["mouth"], [[90]])
        deadline = time.monotonic() + SECONDS
        while len(outcomes) < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        client.close()
    assert {i: outcomes[i] for i in (2, 4, 5)} == {2: 20.0, 4: 40.0, 5: 50.0}
    np.testing.assert_array_equal(call("lookup", _row(7))["mouth"], [[70]])


def _start(client: InferenceServerClient, value: int, outcomes: dict[int, object]) -> Any:
    """Start a call of `lookup`; its output or its error is put into `outcomes`."""
    tensor = InferInput("row", [1, 1], np_to_triton_dtype(np.dtype(np.int64)))
    tensor.set_data_from_numpy(_row(value)["row"])

    def callback(result: Any, error: InferenceServerException | None) -> None:
        outcomes[value] = error or float(result.as_numpy("mouth")[0, 0])

    return client.async_infer("lookup", [tensor], callback=callback)


@pytest.mark.slow
def test_a_stopped_server_answers_what_is_in_flight(tmp_path: Path) -> None:
    _add(tmp_path, "lookup", Lookup(), _row(1), "cpu")
    with Triton(tmp_path, threads=1) as triton, caller(triton.grpc_address) as call:
        call("lookup", _row(0))
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(call, "lookup", _row(i)) for i in range(4)]
            time.sleep(0.2)
            triton.stop()
            for i, answer in enumerate(answers):
                try:
                    np.testing.assert_array_equal(answer.result(SECONDS)["mouth"], [[i * 10]])
                except InferenceServerException as error:  # it had not been taken yet
                    assert error.status() == "StatusCode.UNAVAILABLE", error


def test_after_an_error_that_costs_the_gpu_the_server_ends_so_that_it_can_be_started_again(tmp_path: Path) -> None:
    lost = (
        "from lipsync.triton.sticky import end_process\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        end_process('lost', RuntimeError('CUDA error: an illegal memory access was encountered'))\n"
    )
    repository, log = tmp_path / "models", tmp_path / "triton.log"
    tiny_models.add_python(repository, "lost", lost)
    with Triton(repository, log=log) as triton, caller(triton.grpc_address) as call:
        with pytest.raises(InferenceServerException):
            call("lost", {"x": np.zeros(1, np.float32)})
        with pytest.raises(ModelDied, match="the process of the model lost died"):
            triton.wait(timeout=SECONDS)
    assert "lost: error: the GPU is lost for this process, which ends to be replaced: CUDA error: an illegal" in (
        log.read_text()
    )
