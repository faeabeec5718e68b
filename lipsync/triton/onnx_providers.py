"""Which execution providers onnxruntime runs a network with on a GPU, of those that are installed.

`Installed` says what is there: `Installed.find` looks, and tests make their own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module, metadata, util
from pathlib import Path

from .backend_config import BackendConfig
from .buckets import BUCKETS

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
CPU_PACKAGE, GPU_PACKAGE = "onnxruntime", "onnxruntime-gpu"
INSTALL = f"pip uninstall -y {CPU_PACKAGE} {GPU_PACKAGE}, then pip install -e '.[gpu]' (docs/guide/gpu.md)"
Provider = tuple[str, dict[str, str]]  # as `InferenceSession` takes it

CHOICES = ("auto", "cuda", "tensorrt")  # of the parameter `execution_provider`
# NVIDIA's onnxruntime backend has numbers for these words.
_SEARCHES, _STRATEGIES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"), ("kNextPowerOfTwo", "kSameAsRequested")
_VERSIONS = (
    "install the package `tensorrt` of the version for which this onnxruntime was built, or use `cuda` or `auto`"
)
_USUAL_BATCH = 64  # for which TensorRT optimizes


@dataclass(frozen=True)
class Installed:
    """What this Python has.

    Attributes:
        providers: what onnxruntime was built with. It lists them even where their libraries are missing.
        packages: of CPU_PACKAGE and GPU_PACKAGE, those that are installed.
        tensorrt: whether the package `tensorrt` is there, whose libraries onnxruntime needs for that provider.
    """

    providers: Collection[str]
    packages: Collection[str] = (GPU_PACKAGE,)
    tensorrt: bool = False

    @classmethod
    def find(cls, providers: Collection[str]) -> Installed:
        """Return what is installed here; `providers` is the answer of `onnxruntime.get_available_providers`."""
        names = {str(each.metadata["Name"]).lower() for each in metadata.distributions()}
        packages = [name for name in (CPU_PACKAGE, GPU_PACKAGE) if name in names]
        return cls(providers, packages, util.find_spec("tensorrt") is not None)


@dataclass(frozen=True)
class GpuRun:
    """How one network is to be run on a GPU.

    Attributes:
        device: number of the GPU.
        choice: one of `CHOICES`.
        shapes: inputs of a fixed size by name, without the batch; empty if any input varies, or without a batch.
        max_batch: largest batch.
        search: how kernels of convolutions are chosen, one of `_SEARCHES`.
        strategy: how onnxruntime's memory grows, one of `_STRATEGIES`.
        memory_limit: bytes for activations, 0 for no limit.
        half: whether TensorRT may compute in FP16.
        engines: folder where TensorRT keeps what it has built.
    """

    device: int = 0
    choice: str = CHOICES[0]
    shapes: Mapping[str, Sequence[int]] | None = None
    max_batch: int = BUCKETS[-1]
    search: str = _SEARCHES[1]
    strategy: str = _STRATEGIES[1]
    memory_limit: int = 0
    half: bool = False
    engines: Path | None = None

    @classmethod
    def of(cls, config: BackendConfig, device: int) -> GpuRun:
        """Return what a model's configuration asks for.

        Raises:
            ValueError: one of its parameters has a value that is not allowed.
        """
        given = config.parameter("trt_engine_cache_path")
        return cls(
            device,
            config.choice("execution_provider", CHOICES),
            {spec.name: spec.shape for spec in config.input_specs} if config.fixed else None,
            config.max_batch_size,
            _word(config, "cudnn_conv_algo_search", _SEARCHES, 1),
            _word(config, "arena_extend_strategy", _STRATEGIES, 1),
            config.number("gpu_mem_limit", 0),
            config.parameter("precision") == "fp16",
            Path(given) if given else None,
        )


def gpu_providers(run: GpuRun, installed: Installed) -> list[Provider]:
    """Return the providers for `InferenceSession`, the preferred one first.

    TensorRT builds an engine for one range of shapes in minutes. It is taken for networks whose inputs have one size,
    where it is installed; CUDA runs the others, and the operators that TensorRT does not know.

    Raises:
        ValueError: this onnxruntime has no CUDA provider, or TensorRT is asked for and cannot be taken.
    """
    if CUDA not in installed.providers:
        raise ValueError(f"KIND_GPU is configured, but {_reason(installed)}: {INSTALL}")
    providers = [_cuda(run)]
    available = TENSORRT in installed.providers and installed.tensorrt
    if run.choice == "tensorrt" and not available:
        raise ValueError(f"execution_provider is `tensorrt`, but TensorRT is not installed; {_VERSIONS}")
    if run.choice == "tensorrt" and not run.shapes:
        raise ValueError("execution_provider is `tensorrt`, but the sizes of the inputs vary; use `cuda` or `auto`")
    if run.choice != "cuda" and available and run.shapes:
        providers.insert(0, _tensorrt(run, run.shapes))
    return providers


def load_libraries(providers: Sequence[Provider]) -> None:
    """Load what the providers need from the packages of this Python, as far as it is there.

    A system-wide installation of the same libraries serves, too; `check_loaded` says what is missing.
    """
    import onnxruntime

    onnxruntime.preload_dlls()  # CUDA and cuDNN from NVIDIA's packages
    if any(name == TENSORRT for name, _ in providers):
        with suppress(ImportError, OSError):
            import_module("tensorrt")  # loads its libraries, where onnxruntime finds them


def check_loaded(run: GpuRun, wanted: Sequence[Provider], loaded: Sequence[str], installed: Installed) -> str:
    """Return what is to be logged of the providers that a session has loaded, for instance `with TensorRT and CUDA`.

    onnxruntime itself goes on with fewer providers than it was asked for.

    Raises:
        ValueError: CUDA is not among them, so the network would run on the CPU; or TensorRT is not and was asked for.
    """
    if CUDA not in loaded:
        both = f" {_reason(installed)}." if {CPU_PACKAGE, GPU_PACKAGE} <= {*installed.packages} else ""
        raise ValueError(
            "KIND_GPU is configured, but onnxruntime cannot load its CUDA provider: there is no GPU here, its driver "
            f"is too old, or the libraries of CUDA or cuDNN are missing.{both} Try nvidia-smi; then {INSTALL}"
        )
    lost = [name for name, _ in wanted if name not in loaded]
    if lost and run.choice == "tensorrt":
        raise ValueError(f"execution_provider is `tensorrt`, but its libraries cannot be loaded; {_VERSIONS}")
    text = " and ".join({CUDA: "CUDA", TENSORRT: "TensorRT"}[name] for name in loaded if name != CPU)
    return f"with {text}" + (", not with TensorRT, whose libraries cannot be loaded" if lost else "")


def _reason(installed: Installed) -> str:
    if CPU_PACKAGE not in installed.packages:
        return "this onnxruntime has no CUDA provider"
    if GPU_PACKAGE in installed.packages:
        return f"{CPU_PACKAGE} and {GPU_PACKAGE} are both installed and overwrite each other's files"
    return f"{CPU_PACKAGE} supports only CPUs"


def _cuda(run: GpuRun) -> Provider:
    options = {
        "device_id": str(run.device),
        "cudnn_conv_algo_search": run.search,
        "arena_extend_strategy": run.strategy,
        "use_tf32": "0",  # an FP32 export is meant to be FP32
    }
    if run.memory_limit:
        options["gpu_mem_limit"] = str(run.memory_limit)
    return CUDA, options


def _tensorrt(run: GpuRun, shapes: Mapping[str, Sequence[int]]) -> Provider:
    folder = str(_private(run.engines or Path(tempfile.gettempdir()) / f"talking-avatar-tensorrt-{os.geteuid()}"))
    options = {
        "device_id": str(run.device),
        "trt_fp16_enable": str(int(run.half)),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }
    for bound, batch in (("min", 1), ("opt", min(_USUAL_BATCH, run.max_batch)), ("max", run.max_batch)):
        ranges = (f"{name}:{'x'.join(map(str, (batch, *shape)))}" for name, shape in shapes.items())
        options[f"trt_profile_{bound}_shapes"] = ",".join(ranges)
    return TENSORRT, options


def _private(folder: Path) -> Path:
    """Return the folder, made if it is missing, after a check that it is this user's: code is loaded from it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise ValueError(
            f"parameter trt_engine_cache_path: {folder} belongs to another user; name a folder of your own"
        )
    return folder


def _word(config: BackendConfig, parameter: str, words: Sequence[str], default: int) -> str:
    number = config.number(parameter, default)
    if not 0 <= number < len(words):
        allowed = ", ".join(f"{n} ({word})" for n, word in enumerate(words))
        raise ValueError(f"parameter {parameter}: {allowed} expected, got {number}")
    return words[number]
