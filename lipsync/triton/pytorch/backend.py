"""Build what answers the requests of one `pytorch` model: slots where they pay, otherwise runs of whole batches."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..backend_config import BackendConfig, TensorSpec
from ..buckets import parse_buckets
from ..cpu import threads_per_model
from ..pb_utils import PbUtils
from ..pipelined_executor import PipelinedExecutor
from ..python_backend import BatchExecutor, check_names
from ..run_limits import CpuLimits, GpuLimits
from . import compiled
from .module import Module
from .slots import CpuDevice, CudaDevice, Device, Net, TorchSlot

SLOTS = 2  # one is copied while the other runs
NO_COMPILER = "none"
MODES = (NO_COMPILER, "default", "max-autotune-no-cudagraphs")  # the graphs are ours
YES_NO = ("yes", "no")


def set_up_process(args: Mapping[str, str]) -> None:
    """Set PyTorch's threads and modes, once per process and before the first network.

    Raises:
        ValueError: a number of threads is none.
    """
    config = BackendConfig(args)
    torch.set_flush_denormal(True)  # mostly zero weights produce denormals, which slow a CPU down ten times
    if threads := config.number("INTRA_OP_THREAD_COUNT", threads_per_model()):
        torch.set_num_threads(threads)
    torch.set_num_interop_threads(config.number("INTER_OP_THREAD_COUNT", 1))


def make_executor(pb_utils: PbUtils, args: Mapping[str, str]) -> BatchExecutor | PipelinedExecutor:
    """Load a model and return what answers its requests.

    Args:
        pb_utils: Triton's module.
        args: what Triton passes to `initialize`.

    Raises:
        ValueError, RuntimeError: the model cannot be loaded as configured.
    """
    config = BackendConfig(args)
    device = _device(args)
    pipeline = config.choice("PIPELINE", ("auto", *YES_NO))
    if pipeline == "yes" and not config.fixed:
        raise ValueError("parameter PIPELINE: yes needs max_batch_size and tensors without open dimensions")
    module = Module(config, device)
    check_names(config, module)
    on_gpu = device.type == "cuda"
    if pipeline == "yes" or (pipeline == "auto" and on_gpu and config.fixed):
        return PipelinedExecutor(pb_utils, config, _slots(pb_utils, config, module, device))
    return BatchExecutor(pb_utils, config, module, GpuLimits(config) if on_gpu else CpuLimits())


def _slots(pb_utils: PbUtils, config: BackendConfig, module: Module, device: torch.device) -> list[TorchSlot]:
    specs = {spec.name: spec for spec in config.input_specs}
    inputs = [specs[name] for name in module.inputs]
    nets = _nets(pb_utils, config, module, device, inputs)
    graphs = config.choice("CUDA_GRAPHS", YES_NO) == "yes"

    def on_refusal(reason: str) -> None:
        pb_utils.Logger.log_warn(f"{config.name}: no CUDA graph, the kernels are started one by one: {reason}")

    def own_device() -> Device:
        if device.type == "cpu":
            return CpuDevice()
        return CudaDevice(device.index, graphs=graphs, on_refusal=on_refusal)

    return [TorchSlot(own_device(), nets, inputs, config.output_specs) for _ in range(SLOTS)]


def _nets(
    pb_utils: PbUtils, config: BackendConfig, module: Module, device: torch.device, inputs: Sequence[TensorSpec]
) -> Mapping[int, Net]:
    """Return the network for each bucket. On a CPU every size is a bucket, because padding would cost time there."""
    mode = config.choice("COMPILE", MODES)
    buckets = parse_buckets(config.parameter("BUCKETS"), config.max_batch_size)
    if mode == NO_COMPILER:
        exact = device.type == "cpu" and not config.parameter("BUCKETS")
        return dict.fromkeys(range(1, config.max_batch_size + 1) if exact else buckets, module.net)
    compiled.set_up_compiler(_compiler_cache(config))
    warn = pb_utils.Logger.log_warn
    return compiled.compile_or_keep(
        module.net, mode, inputs, buckets, device, lambda why: warn(f"{config.name}: {why}")
    )


def _compiler_cache(config: BackendConfig) -> Path:
    """Return the folder for what the compiler makes of this export, private to this user."""
    given = config.parameter("COMPILE_CACHE")
    base = Path(given) if given else Path(tempfile.gettempdir()) / f"talking-avatar-torch-{os.geteuid()}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if base.stat().st_uid != os.geteuid():  # compiled code is loaded from there
        raise ValueError(f"parameter COMPILE_CACHE: {base} belongs to another user; name a folder of your own")
    return base / (config.parameter("export") or config.name)


def _device(args: Mapping[str, str]) -> torch.device:
    if args["model_instance_kind"] != "GPU":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("KIND_GPU is configured, but PyTorch finds no GPU")
    return torch.device("cuda", int(args["model_instance_device_id"]))
