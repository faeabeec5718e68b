"""The `pytorch` backend without a server, on every device of this machine: slots, buckets, compiled networks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from lipsync.triton.backend_config import BackendConfig
from lipsync.triton.pipelined_executor import PipelinedExecutor
from lipsync.triton.python_backend import BatchExecutor
from lipsync.triton.pytorch import backend, compiled
from lipsync.triton.pytorch.module import Module
from lipsync.triton.pytorch.slots import CpuDevice, TorchSlot
from tests.support.fake_pb_utils import FakePbUtils, Request, Tensors, backend_args
from tests.support.torch_devices import every_device

MOST = 8
SIDE = 6
INPUTS: Tensors = {"face": (np.uint8, (SIDE, SIDE, 3)), "mel": (np.float32, (4, 2))}
OUTPUTS: Tensors = {"mouth": (np.uint8, (SIDE, SIDE, 3)), "loudness": (np.float32, (1,))}


class Net(torch.nn.Module):
    """A small relative of Wav2Lip: bytes in and out, a convolution in channels-last, and a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, face: torch.Tensor, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loudness = mel.mean((1, 2)).unsqueeze(1)
        image = self.layer((face.float() / 255).permute(0, 3, 1, 2)) * torch.sigmoid(loudness)[:, :, None, None]
        return (torch.sigmoid(image).permute(0, 2, 3, 1) * 255).to(torch.uint8), loudness


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net") / "1"
    folder.mkdir()
    torch.manual_seed(3)
    net = Net().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        sample = tuple(torch.from_numpy(array) for array in _inputs(2, 0).values())
        torch.jit.save(torch.jit.trace(net, sample, check_trace=False), folder / "model.pt")  # type: ignore[no-untyped-call]
    return folder.parent


class Bench:
    """The backend's executor for the net, and the net itself."""

    def __init__(self, repository: Path, device: str, **parameters: str) -> None:
        self.pb = FakePbUtils()
        self.args = backend_args(
            INPUTS, OUTPUTS, batch=MOST, repository=str(repository), device=device, parameters=parameters
        )
        self.executor = backend.make_executor(cast(Any, self.pb), self.args)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._net = torch.jit.load(repository / "1" / "model.pt").eval()  # type: ignore[no-untyped-call]

    def execute(self, *requests: Request) -> None:
        answers = self.executor.execute(cast(Any, requests))
        for request, answer in zip(requests, answers or (), strict=False):
            request.send(cast(Any, answer))

    def check(self, request: Request) -> None:
        with torch.no_grad():
            results = self._net(*(torch.from_numpy(array) for array in request.arrays.values()))
        expected = dict(zip(OUTPUTS, (result.numpy() for result in results), strict=True))
        outputs = request.answer().outputs
        assert set(outputs) == set(request.outputs)
        for name, array in outputs.items():
            # a bucket of another size, or another device, may round differently
            np.testing.assert_allclose(
                array.astype(float), expected[name], rtol=1e-3, atol=1.0 if name == "mouth" else 1e-4
            )


def _inputs(rows: int, seed: int) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(seed)
    return {
        "face": noise.integers(0, 256, (rows, SIDE, SIDE, 3), np.uint8),
        "mel": noise.uniform(-4, 4, (rows, 4, 2)).astype(np.float32),
    }


def _request(rows: int, seed: int, outputs: Sequence[str] = tuple(OUTPUTS)) -> Request:
    return Request(_inputs(rows, seed), outputs, str(seed))


@every_device
@pytest.mark.parametrize(
    "parameters", [{}, {"BUCKETS": "2,4"}, {"CUDA_GRAPHS": "no"}], ids=["default", "buckets", "no graphs"]
)
def test_batches_of_every_size_are_right_in_both_slots(
    repository: Path, device: str, parameters: Mapping[str, str]
) -> None:
    bench = Bench(repository, device, PIPELINE="yes", **parameters)
    requests = [_request(rows, rows * 10 + turn) for rows in range(1, MOST + 1) for turn in range(2)]
    for request in requests:
        bench.execute(request)
    for request in requests:
        bench.check(request)
    assert bench.pb.log == []
    bench.executor.close()


@every_device
def test_requests_share_a_padded_batch_and_ask_for_their_outputs(repository: Path, device: str) -> None:
    bench = Bench(repository, device, PIPELINE="yes", BUCKETS="8")
    requests = [_request(2, 1), _request(1, 2, ["loudness"]), _request(3, 3, ["mouth"])]
    for _ in range(3):
        for request in requests:
            request.answers.clear()
        bench.execute(*requests)
        for request in requests:
            bench.check(request)
            request.sent.clear()
    bench.executor.close()


@every_device
def test_slots_give_what_whole_batches_give(repository: Path, device: str) -> None:
    outputs = []
    for pipeline in ("yes", "no"):
        bench, request = Bench(repository, device, PIPELINE=pipeline), _request(5, 9)
        bench.execute(request)
        outputs.append(request.answer().outputs)
        bench.executor.close()
    for name in OUTPUTS:
        np.testing.assert_allclose(outputs[0][name].astype(float), outputs[1][name], rtol=1e-3, atol=1.0)


@every_device
def test_by_default_slots_are_used_on_a_gpu_only(repository: Path, device: str) -> None:
    bench = Bench(repository, device)
    assert isinstance(bench.executor, BatchExecutor if device == "cpu" else PipelinedExecutor)
    request = _request(3, 4)
    bench.execute(request)
    bench.check(request)
    bench.executor.close()


def test_on_a_cpu_nothing_is_padded_unless_buckets_are_given(repository: Path) -> None:
    sizes: list[int] = []

    def net(face: torch.Tensor, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(face))
        return face, mel.mean((1, 2)).unsqueeze(1)

    config = BackendConfig(backend_args(INPUTS, OUTPUTS, batch=MOST))
    for buckets in (range(1, MOST + 1), (2, MOST)):
        slot = TorchSlot(CpuDevice(), dict.fromkeys(buckets, net), config.input_specs, config.output_specs)
        for rows in (1, 2, 3, MOST):
            slot.launch(rows)
            slot.wait()
    assert sizes == [1, 2, 3, MOST, 2, 2, MOST, MOST]


def test_a_network_that_returns_other_shapes_than_the_config_has_is_an_error() -> None:
    config = BackendConfig(backend_args(INPUTS, OUTPUTS, batch=MOST))
    slot = TorchSlot(
        CpuDevice(), {MOST: lambda face, mel: (face[:1], mel[:, 0, :1])}, config.input_specs, config.output_specs
    )
    slot.launch(3)
    with pytest.raises(RuntimeError, match=r"the network returned \[1, 6, 6, 3\], the config has \[8, 6, 6, 3\]"):
        slot.wait()


@every_device
def test_a_compiled_network_gives_the_same_for_every_bucket(
    repository: Path, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compilations = _count_compilations(monkeypatch)
    parameters = {"COMPILE": "default", "COMPILE_CACHE": str(tmp_path), "BUCKETS": "2", "export": "abc"}
    bench = Bench(repository, device, PIPELINE="yes", **parameters)
    assert bench.pb.log == []
    assert compilations == [2, MOST]
    assert (tmp_path / "abc").is_dir()
    requests = [_request(rows, rows) for rows in (1, 2, 5, MOST)]
    for request in requests:
        bench.execute(request)
    for request in requests:
        bench.check(request)
    bench.executor.close()


def _restore_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (compiled.CACHE_VARIABLE, compiled.THREADS_VARIABLE):
        monkeypatch.setenv(variable, "1")  # so that it is removed after the test
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


def _count_compilations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Leave out the machine code: on a CPU the compiler needs a minute of g++. Return the compiled batch sizes."""
    sizes: list[int] = []

    def compile_without_code(graph: torch.fx.GraphModule, **options: Any) -> Any:
        assert options == {"mode": "default", "fullgraph": True, "dynamic": False}
        (first, *_) = graph.graph.nodes
        sizes.append(first.meta["val"].shape[0] if "val" in first.meta else first.meta["tensor_meta"].shape[0])
        return graph

    monkeypatch.setattr(torch, "compile", compile_without_code)
    _restore_environment(monkeypatch)
    return sizes


@every_device
@pytest.mark.parametrize("fault", ["refuses", "is wrong"])
def test_a_network_that_does_not_compile_runs_as_it_is(
    repository: Path, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def compile_badly(graph: torch.fx.GraphModule, **options: Any) -> Any:
        if fault == "refuses":
            raise RuntimeError("no compiler\nand a traceback")
        return lambda face, mel: (255 - face, mel.mean((1, 2)).unsqueeze(1))

    monkeypatch.setattr(torch, "compile", compile_badly)
    _restore_environment(monkeypatch)
    bench = Bench(repository, device, PIPELINE="yes", COMPILE="default", COMPILE_CACHE=str(tmp_path))
    (line,) = bench.pb.log
    assert line.startswith("warn: net: torch.compile failed, TorchScript runs instead: ")
    assert ("RuntimeError: no compiler" if fault == "refuses" else "its outputs differ from the module's: ") in line
    assert "\n" not in line
    request = _request(3, 1)
    bench.execute(request)
    bench.check(request)
    bench.executor.close()


def test_psnr_takes_the_worst_output_and_knows_equal_ones() -> None:
    ones, zeros = torch.ones(4), torch.zeros(4)
    image = torch.full((4,), 100, dtype=torch.uint8)
    assert compiled.psnr((image, ones), (image, ones)) == float("inf")
    assert compiled.psnr(image + 1, image) == pytest.approx(48.13, abs=0.01)
    assert compiled.psnr((image, ones * 1.1), (image, ones)) == pytest.approx(20, abs=0.01)
    assert compiled.psnr(ones, zeros) == float("-inf")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"PIPELINE": "maybe"}, "parameter PIPELINE: auto or yes or no expected, got 'maybe'"),
        ({"PIPELINE": "yes", "CUDA_GRAPHS": "1"}, "parameter CUDA_GRAPHS: yes or no expected, got '1'"),
        ({"PIPELINE": "yes", "BUCKETS": "x"}, "parameter BUCKETS: positive numbers expected"),
        ({"PIPELINE": "yes", "COMPILE": "fast"}, "parameter COMPILE: none or default or max-autotune-no-cudagraphs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_parameter_is_reported_by_name(repository: Path, parameters: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Bench(repository, "cpu", **parameters)


def test_a_pipeline_needs_rows_of_a_fixed_size(repository: Path) -> None:
    args = backend_args(
        {"face": (np.uint8, (-1, -1, 3))}, OUTPUTS, repository=str(repository), parameters={"PIPELINE": "yes"}
    )
    with pytest.raises(ValueError, match="PIPELINE: yes needs max_batch_size and tensors without open dimensions"):
        backend.make_executor(cast(Any, FakePbUtils()), args)


@every_device
def test_a_module_takes_its_inputs_by_name(repository: Path, device: str) -> None:
    module = Module(BackendConfig(backend_args(INPUTS, OUTPUTS, repository=str(repository))), torch.device(device))
    assert module.inputs == ["face", "mel"]
    inputs = _inputs(2, 1)
    (loudness,) = module.run(["loudness"], dict(reversed(inputs.items())), large=False)
    np.testing.assert_allclose(loudness[:, 0], inputs["mel"].mean((1, 2)), rtol=1e-4)
