"""Triton configurations: from the table of tensors to the ModelConfig protobuf to `config.pbtxt`.

What a model's tensors are stands in `lipsync.tensors`, what it runs on in `RUNTIMES` here, and how the nets are
served on which machine in `profiles`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from lipsync import tensors
from lipsync.tensors import Model, Tensor

from ..errors import ExportError
from ..files import atomic_write
from ..variants import ONNX_FP32, Format, Profile, Variant
from .profiles import ENGINE_CACHE, PROFILES, ServingProfile, Size, TensorRT

CONFIG_FILE = "config.pbtxt"
_HEADER = "# Generated from lipsync/tensors.py by `python -m export configs`. Change it there, not here.\n"


@dataclass(frozen=True)
class NetworkRuntime:
    """A neural network; what serves it is its variant's backend, and how is its profile's `Service`."""


@dataclass(frozen=True)
class PythonRuntime:
    """A `model.py` on the Python backend: one process, always on the CPU.

    Attributes:
        idle_seconds: of a model with sequences, how long a session may be silent before its place is another's.
        sessions: how many sessions Triton lets into one instance; the model itself refuses earlier, and says why.
        beside_gpu: instances where a GPU computes the nets: what is left then is bound by Python's lock.
    """

    idle_seconds: int = 0
    sessions: int = 0
    instances_with_gpu: int = 1


@dataclass(frozen=True)
class Step:
    """One model of an ensemble; both maps go from the model's own tensor name to the ensemble's."""

    model: Model
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Ensemble:
    """Models chained inside Triton, in the order of the data."""

    steps: tuple[Step, ...]


Runtime = NetworkRuntime | PythonRuntime | Ensemble

# NVIDIA's native openvino backend takes full batches only, unless it may fill them up (docs/adr/0010); its own
# default of several streams would share the cores among copies of the net.
_BACKEND_PARAMETERS: Mapping[Format, Mapping[str, str]] = {
    Format.OPENVINO: {"ENABLE_BATCH_PADDING": "YES", "NUM_STREAMS": "1"},
}

_CROP = Step(tensors.FACE_CROP, {"frames": "frames", "boxes": "boxes", "mel": "mel"}, {"faces": "faces"})


def _speak(net: Model) -> Step:
    return Step(net, {"face": "faces", "mel": "mel"}, {"mouth": "mouths"})


RUNTIMES: Mapping[str, Runtime] = {
    "mel_spectrogram": PythonRuntime(),
    "s3fd": NetworkRuntime(),
    "face_nms": PythonRuntime(),
    "detect_faces": Ensemble(
        (
            Step(tensors.S3FD, {"image": "frames"}, {"boxes": "candidates", "scores": "candidate_scores"}),
            Step(
                tensors.FACE_NMS,
                {"boxes": "candidates", "scores": "candidate_scores"},
                {"boxes": "boxes", "scores": "scores"},
            ),
        )
    ),
    "face_crop": PythonRuntime(),
    "wav2lip": NetworkRuntime(),
    "wav2lip_gan": NetworkRuntime(),
    "lipsync": Ensemble((_CROP, _speak(tensors.WAV2LIP))),
    "lipsync_gan": Ensemble((_CROP, _speak(tensors.WAV2LIP_GAN))),
    "face_paste": PythonRuntime(),
    "lipsync_clip": Ensemble(
        (
            Step(tensors.MEL_SPECTROGRAM, {"audio": "audio", "fps": "fps"}, {"mel": "mel"}),
            _CROP,
            _speak(tensors.WAV2LIP),
            Step(
                tensors.FACE_PASTE,
                {"frames": "frames", "boxes": "boxes", "mouths": "mouths"},
                {"frames": "result"},
            ),
        )
    ),
    "segmentation": NetworkRuntime(),
    "avatar": PythonRuntime(),
    # more than a session may be silent: Triton counts from a request, the model from its answer, which takes time
    "live": PythonRuntime(6 * tensors.SEQUENCE_IDLE_SECONDS, sessions=16384, instances_with_gpu=4),
}


def committed() -> Path:
    """The project's `model_repository/`, beside this package whatever the working directory is.

    Raises:
        ExportError: the package was installed without it.
    """
    folder = Path(__file__).parents[2] / "model_repository"
    if not folder.is_dir():
        raise ExportError(
            f"{folder} is missing: the Python models stand there. Run from a checkout of the project "
            "(pip install -e .), not from an installed copy of its packages alone"
        )
    return folder


def config(
    model: Model,
    parameters: Mapping[str, str] | None = None,
    *,
    variant: Variant = ONNX_FP32,
    profile: Profile = Profile.CPU,
) -> pb.ModelConfig:
    """The Triton configuration of a model of the table.

    Args:
        model: one of `lipsync.tensors.MODELS`.
        parameters: strings that go into the configuration's `parameters`.
        variant: what the model was exported as; counts for nets only. The tensors are the same in all of them.
        profile: the machine that a net is served on.

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
            _run_net(result, model, variant, PROFILES[profile][model.name])
        case PythonRuntime() as python:
            count = 1 if profile is Profile.CPU else python.instances_with_gpu
            result.backend = "python"
            result.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=count)
            if model.streams:
                result.model_transaction_policy.decoupled = True
            if model.sequences:
                result.sequence_batching.max_sequence_idle_microseconds = python.idle_seconds * 1_000_000
                result.sequence_batching.oldest.max_candidate_sequences = python.sessions
        case Ensemble(steps):
            result.platform = "ensemble"
            result.ensemble_scheduling.step.extend(
                pb.ModelEnsembling.Step(
                    model_name=step.model.name, model_version=-1, input_map=step.inputs, output_map=step.outputs
                )
                for step in steps
            )
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
    """The text of a model's `config.pbtxt`; arguments and errors as `config`."""
    message = config(model, parameters, variant=variant, profile=profile)
    return _HEADER + str(text_format.MessageToString(message, as_utf8=True))


def write(repository: Path) -> list[Path]:
    """Write every model's `config.pbtxt` into `repository`; give back the files that changed."""
    return [path for model in tensors.MODELS if (path := write_one(model, repository))]


def write_one(
    model: Model,
    repository: Path,
    parameters: Mapping[str, str] | None = None,
    *,
    variant: Variant = ONNX_FP32,
    profile: Profile = Profile.CPU,
) -> Path | None:
    """Write one model's `config.pbtxt` into `repository`, by a rename; give back the file if it changed."""
    path = repository / model.name / CONFIG_FILE
    text = render(model, parameters, variant=variant, profile=profile)
    if path.is_file() and path.read_text("utf-8") == text:
        return None
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")
    return path


def differences(repository: Path) -> str:
    """A unified diff from the configs in `repository` to what `write` would put there; empty when equal."""
    lines: list[str] = []
    for model in tensors.MODELS:
        path = repository / model.name / CONFIG_FILE
        there = path.read_text("utf-8").splitlines() if path.is_file() else []
        name = f"{repository.name}/{model.name}/{CONFIG_FILE}"
        wanted = render(model).splitlines()
        lines += difflib.unified_diff(there, wanted, name, f"{name} (generated)", lineterm="")
    return "\n".join(lines)


def _run_net(result: pb.ModelConfig, model: Model, variant: Variant, service: ServingProfile) -> None:
    result.backend = variant.format.backend
    result.default_model_filename = variant.format.file
    if model.max_batch_size and service.max_batch_size:
        result.max_batch_size = max(model.max_batch_size, service.max_batch_size)
    kind = pb.ModelInstanceGroup.Kind.Value(service.kind)
    result.instance_group.add(kind=kind, count=service.instances)
    if service.queue_delay_us is not None:
        result.dynamic_batching.max_queue_delay_microseconds = service.queue_delay_us
        result.dynamic_batching.preferred_batch_size.extend(service.preferred)
    for key, value in _BACKEND_PARAMETERS.get(variant.format, {}).items():
        result.parameters[key].string_value = value
    if service.tensorrt:
        _accelerate(result, service.tensorrt)
    for batch in service.warm_up:
        sample = result.model_warmup.add(name=f"batch of {batch}", batch_size=batch)
        for tensor in model.inputs:
            shape = service.sizes.get(tensor.name, tensor.shape)
            sample.inputs[tensor.name].CopyFrom(
                pb.ModelWarmup.Input(data_type=_type(tensor), dims=shape, zero_data=True)
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
    """As onnxruntime reads them: `face:1x96x96x3,mel:1x80x16`."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sizes.items())


def _type(tensor: Tensor) -> int:
    return int(pb.DataType.Value("TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"))
