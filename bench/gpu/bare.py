"""`wav2lip` in its bare runtime: frames per second without a server, with the tensors on the device already."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import onnxruntime
import torch

from export.build import versions
from export.variants import Format
from lipsync.arrays import Batch
from lipsync.tensors import WAV2LIP

from .callers import noise
from .errors import LeftOut

Run = Callable[[], None]  # one run of a batch; on a GPU it may return before the run is over
_PROBES, _LEAST = 3, 3  # runs to estimate the duration of one; the smallest number of timed runs


def exported(repository: Path) -> tuple[Path, Format]:
    """Return the newest exported `wav2lip` of a repository, and its format.

    Raises:
        LeftOut: there is none.
    """
    found = versions.list_versions(repository / WAV2LIP.name)
    if not found:
        raise LeftOut(f"{repository}: no exported {WAV2LIP.name}")
    kind = Format(str(found[-1].record["format"]))
    return found[-1].folder / kind.file, kind


def runs(path: Path, kind: Format, device: str, batch: int) -> Iterator[tuple[str, Run]]:
    """Yield the ways to run this batch size in the bare runtime: a name, and the run.

    Raises:
        LeftOut: the runtime is not here, or not for this device.
    """
    if kind is Format.TORCHSCRIPT:
        yield from _torchscript(path, device, noise(batch, batch))
    elif kind is Format.ONNX:
        yield "bare", _onnx(path, device, noise(batch, batch))
    else:
        raise LeftOut(f"{kind} runs on CPUs only")


def frames_per_second(run: Run, batch: int, seconds: float, device: str) -> float:
    """Return the frames per second of runs one after another."""
    wait: Run = torch.cuda.synchronize if device == "cuda" else lambda: None
    run()
    wait()
    begin = time.perf_counter()
    for _ in range(_PROBES):
        run()
    wait()
    count = max(_LEAST, round(seconds * _PROBES / (time.perf_counter() - begin)))
    begin = time.perf_counter()
    for _ in range(count):
        run()
    wait()
    return count * batch / (time.perf_counter() - begin)


def _torchscript(path: Path, device: str, batch: Batch) -> Iterator[tuple[str, Run]]:
    """Yield the frozen module; on a GPU also its replay as a CUDA graph."""
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch deprecates TorchScript
        module = torch.jit.freeze(torch.jit.load(path, map_location=device).eval())  # type: ignore[no-untyped-call]
    tensors = [torch.from_numpy(array).to(device) for array in batch]

    def run() -> None:
        with torch.inference_mode():
            module(*tensors)

    for _ in range(_PROBES):  # the first runs of a shape compile it
        run()
    yield "bare", run
    if device == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            module(*tensors)
        yield "bare, CUDA graph", graph.replay


def onnx_provider(device: str) -> str:
    """Return the name of onnxruntime's provider for the device. Raises LeftOut if it is not here."""
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise LeftOut(f"onnxruntime {onnxruntime.__version__} here has no {provider}; it needs onnxruntime-gpu")
    return provider


def _onnx(path: Path, device: str, batch: Batch) -> Run:
    provider = onnx_provider(device)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    session = onnxruntime.InferenceSession(path, options, providers=[provider])
    if provider not in session.get_providers():  # onnxruntime falls back to the CPU with a warning only
        raise LeftOut(f"onnxruntime {onnxruntime.__version__} cannot use its {provider} here")
    binding = session.io_binding()
    for tensor, array in zip(WAV2LIP.inputs, batch, strict=True):
        binding.bind_ortvalue_input(tensor.name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0))
    for tensor in WAV2LIP.outputs:
        binding.bind_output(tensor.name, device)
    return lambda: session.run_with_iobinding(binding)
