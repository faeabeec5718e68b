"""Generate Triton configurations: from the table of tensors to the ModelConfig protobuf to `config.pbtxt`.

`lipsync.tensors` defines the tensors of each model, `runtimes` what it runs on, and `profiles` how the networks are
served on each kind of machine.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from lipsync import tensors
from lipsync.tensors import Model, Tensor

from ..errors import ExportError
from ..files import atomic_write
from ..variants import ONNX_FP32, Format, Profile, Variant
from .profiles import ENGINE_CACHE, PROFILES, ServingProfile, Size, TensorRT
from .runtimes import RUNTIMES, Ensemble, NetworkRuntime, PythonRuntime, Step

CONFIG_FILE = "config.pbtxt"
_HEADER = "# Generated from lipsync/tensors.py by `python -m export configs`. Change it there, not here.\n"


# NVIDIA's native openvino backend runs only full batches, unless it may pad them (docs/adr/0010). Its default of many
# streams would split the cores among copies of the network.
_BACKEND_PARAMETERS: Mapping[Format, Mapping[str, str]] = {
    Format.OPENVINO: {"ENABLE_BATCH_PADDING": "YES", "NUM_STREAMS": "1"},
}


def committed() -> Path:
    """Return the project's `model_repository/`, which is next to this package.

    Raises:
        ExportError: the package was installed without it.
    """
    folder = Path(__file__).parents[2] / "model_repository"
    if not folder.is_dir():
        raise ExportError(
            f"{folder} is missing, and with it the Python models; run this from a checkout of the project "
            "(pip install -e .), not from an installed copy of its packages"
        )
    return folder


def config(
    model: Model,
    parameters: Mapping[str, str] | None = None,
    *,
    variant: Variant = ONNX_FP32,
    profile: Profile = Profile.CPU,
) -> pb.ModelConfig:
    """Return the Triton configuration of a model of the table.

    Args:
        model: one of `lipsync.tensors.MODELS`.
        parameters: strings to add to the configuration's `parameters`.
        variant: the exported variant, for networks only. All variants have the same tensors.
        profile: the kind of machine that serves the model.

    Raises:
        KeyError: the model has no entry in `RUNTIMES`.
    """
    result = pb.ModelConfig(name=model.name, max_batch_size=model.max_batch_size)
    result.input.extend(
        pb.ModelInput(name=t.name, data_type=_type(t), dims=t.shape, optional=t.optional) for t in model.inputs
    )
    result.output.extend(pb.ModelOutput(name=t.name, data_type=_type(t), dims=t.shape) for t in model.outputs)
    match RUNTIMES[model.name]:
        case NetworkRuntime():
            _set_network(result, model, variant, PROFILES[profile][model.name])
        case PythonRuntime() as runtime:
            _set_python(result, model, runtime, profile)
        case Ensemble(steps):
            _set_ensemble(result, steps)
    result.parameters[tensors.API_VERSION_PARAMETER].string_value = tensors.API_VERSION
    for key, value in (parameters or {}).items():
        result.parameters[key].string_value = value
    return result


def render(
    model: Model,
    parameters: Mapping[str, str] | None = None,
    *,
    variant: Variant = ONNX_FP32,
    profile: Profile = Profile.CPU,
) -> str:
    """Return the text of a model's `config.pbtxt`; arguments and errors as in `config`."""
    message = config(model, parameters, variant=variant, profile=profile)
    return _HEADER + str(text_format.MessageToString(message, as_utf8=True))


def write(repository: Path) -> list[Path]:
    """Write every model's `config.pbtxt` into `repository`, and return the files that changed."""
    return [path for model in tensors.MODELS if (path := write_one(model, repository))]


def write_one(
    model: Model,
    repository: Path,
    parameters: Mapping[str, str] | None = None,
    *,
    variant: Variant = ONNX_FP32,
    profile: Profile = Profile.CPU,
) -> Path | None:
    """Write one model's `config.pbtxt` into `repository` by a rename, and return the file if it changed."""
    path = repository / model.name / CONFIG_FILE
    text = render(model, parameters, variant=variant, profile=profile)
    if path.is_file() and path.read_text("utf-8") == text:
        return None
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")
    return path


def differences(repository: Path) -> str:
    """Return a unified diff from the configs in `repository` to what `write` would write; empty if they are equal."""
    lines: list[str] = []
    for model in tensors.MODELS:
        path = repository / model.name / CONFIG_FILE
        current = path.read_text("utf-8").splitlines() if path.is_file() else []
        name = f"{repository.name}/{model.name}/{CONFIG_FILE}"
        expected = render(model).splitlines()
        lines += difflib.unified_diff(current, expected, name, f"{name} (generated)", lineterm="")
    return "\n".join(lines)


def _set_network(result: pb.ModelConfig, model: Model, variant: Variant, serving: ServingProfile) -> None:
    result.backend = variant.format.backend
    result.default_model_filename = variant.format.file
    if model.max_batch_size and serving.max_batch_size:
        result.max_batch_size = max(model.max_batch_size, serving.max_batch_size)
    kind = pb.ModelInstanceGroup.Kind.Value(serving.kind)
    result.instance_group.add(kind=kind, count=serving.instances)
    if serving.queue_delay_us is not None:
        result.dynamic_batching.max_queue_delay_microseconds = serving.queue_delay_us
        result.dynamic_batching.preferred_batch_size.extend(serving.preferred)
    for key, value in _BACKEND_PARAMETERS.get(variant.format, {}).items():
        result.parameters[key].string_value = value
    if serving.tensorrt:
        _accelerate(result, serving.tensorrt)
    _add_warm_up(result, model, serving)


def _add_warm_up(result: pb.ModelConfig, model: Model, serving: ServingProfile) -> None:
    """Add runs on zeros, which Triton makes before the model is ready."""
    for batch in serving.warm_up:
        sample = result.model_warmup.add(name=f"batch of {batch}", batch_size=batch)
        for tensor in model.inputs:
            shape = serving.sizes.get(tensor.name, tensor.shape)
            sample.inputs[tensor.name].CopyFrom(
                pb.ModelWarmup.Input(data_type=_type(tensor), dims=shape, zero_data=True)
            )


def _set_python(result: pb.ModelConfig, model: Model, runtime: PythonRuntime, profile: Profile) -> None:
    result.backend = "python"
    count = 1 if profile is Profile.CPU else runtime.instances_with_gpu
    result.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=count)
    if model.streams:
        result.model_transaction_policy.decoupled = True
    if model.sequences:
        result.sequence_batching.max_sequence_idle_microseconds = runtime.idle_seconds * 1_000_000
        result.sequence_batching.oldest.max_candidate_sequences = runtime.sessions


def _set_ensemble(result: pb.ModelConfig, steps: Sequence[Step]) -> None:
    result.platform = "ensemble"
    result.ensemble_scheduling.step.extend(
        pb.ModelEnsembling.Step(
            model_name=step.model.name, model_version=-1, input_map=step.inputs, output_map=step.outputs
        )
        for step in steps
    )


def _accelerate(result: pb.ModelConfig, tensorrt: TensorRT) -> None:
    accelerator = result.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    accelerator.parameters.update(
        {
            "precision_mode": "FP16",
            "max_workspace_size_bytes": str(tensorrt.workspace_bytes),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": ENGINE_CACHE,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": ENGINE_CACHE,
            "trt_profile_min_shapes": _shapes(tensorrt.smallest),
            "trt_profile_opt_shapes": _shapes(tensorrt.usual),
            "trt_profile_max_shapes": _shapes(tensorrt.largest),
        }
    )


def _shapes(sizes: Mapping[str, Size]) -> str:
    """Return shapes in onnxruntime's notation: `face:1x96x96x3,mel:1x80x16`."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sizes.items())


def _type(tensor: Tensor) -> int:
    return int(pb.DataType.Value("TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"))
