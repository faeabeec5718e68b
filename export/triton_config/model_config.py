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
from lipsync.triton.cpu import usable_cores

from ..errors import ExportError
from ..files import atomic_write
from ..variants import ONNX_FP32, Format, Profile, Variant
from . import plan_config
from .profiles import PROFILES, ServingProfile
from .runtimes import RUNTIMES, Ensemble, NetworkRuntime, PythonRuntime, Step

CONFIG_FILE = "config.pbtxt"
_HEADER = "# Generated from lipsync/tensors.py by `python -m export configs`. Change it there, not here.\n"


# What a backend is told on any machine. NVIDIA's native openvino backend runs only full batches, unless it may pad them
# (docs/adr/0010). Its default of many streams would split the cores among copies of the network.
_PARAMETERS: Mapping[Format, Mapping[str, str]] = {
    Format.OPENVINO: {"ENABLE_BATCH_PADDING": "YES", "NUM_STREAMS": "1"},
}
# What it is told on a GPU (docs/adr/0034). onnxruntime: choose kernels by a rule ("1"), not by a trial of all for every
# new shape, and take as much memory as is needed ("1"), not the next power of two. pytorch: instances share one copy of
# the weights.
_GPU_PARAMETERS: Mapping[Format, Mapping[str, str]] = {
    Format.ONNX: {"cudnn_conv_algo_search": "1", "arena_extend_strategy": "1"},
    Format.TORCHSCRIPT: {"ENABLE_WEIGHT_SHARING": "true"},
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
    cores: int | None = None,
    versions: Sequence[int] = (),
) -> pb.ModelConfig:
    """Return the Triton configuration of a model of the table.

    Args:
        model: one of `lipsync.tensors.MODELS`, or of `LIVE_NETWORKS`.
        parameters: strings to add to the configuration's `parameters`.
        variant: the exported variant, for networks only. All variants have the same tensors.
        profile: the kind of machine that serves the model.
        cores: of that machine; by default those that this process may use. On a CPU nothing depends on it.
        versions: the versions to serve; by default the newest one alone.

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
            _set_python(result, model, runtime, runtime.instances(profile, cores or usable_cores()))
        case Ensemble(steps):
            _set_ensemble(result, steps)
    if versions:
        result.version_policy.specific.versions.extend(versions)
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
    versions: Sequence[int] = (),
) -> str:
    """Return the text of a model's `config.pbtxt`; arguments and errors as in `config`."""
    message = config(model, parameters, variant=variant, profile=profile, versions=versions)
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
    versions: Sequence[int] = (),
) -> Path | None:
    """Write one model's `config.pbtxt` into `repository` by a rename, and return the file if it changed."""
    path = repository / model.name / CONFIG_FILE
    text = render(model, parameters, variant=variant, profile=profile, versions=versions)
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
    result.instance_group.add(kind=kind, count=1 if variant.format is Format.TORCHSCRIPT else serving.instances)
    if serving.queue_delay_us is not None:
        # No preferred sizes: a batch of such a size is run at once, although a larger one is a moment away.
        result.dynamic_batching.SetInParent()
        result.dynamic_batching.max_queue_delay_microseconds = serving.queue_delay_us
    for key, value in _backend_parameters(variant.format, serving).items():
        result.parameters[key].string_value = value
    _add_warm_up(result, model, serving)
    if variant.format is Format.TENSORRT:
        plan_config.complete(result, model)


def _backend_parameters(format: Format, serving: ServingProfile) -> dict[str, str]:
    parameters = dict(_PARAMETERS.get(format, {}))
    if serving.kind == "KIND_GPU":
        parameters |= _GPU_PARAMETERS.get(format, {})
        if format is Format.ONNX and serving.memory_limit is not None:
            parameters["gpu_mem_limit"] = str(serving.memory_limit)
    return parameters


def _add_warm_up(result: pb.ModelConfig, model: Model, serving: ServingProfile) -> None:
    """Add runs on zeros, which Triton makes before the model is ready."""
    for batch in serving.warm_up:
        sample = result.model_warmup.add(name=f"batch of {batch}", batch_size=batch)
        if serving.warm_up_runs > 1:
            sample.count = serving.warm_up_runs
        for tensor in model.inputs:
            shape = serving.sizes.get(tensor.name, tensor.shape)
            sample.inputs[tensor.name].CopyFrom(
                pb.ModelWarmup.Input(data_type=_type(tensor), dims=shape, zero_data=True)
            )


def _set_python(result: pb.ModelConfig, model: Model, runtime: PythonRuntime, count: int) -> None:
    result.backend = "python"
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


def _type(tensor: Tensor) -> int:
    return int(pb.DataType.Value("TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"))
