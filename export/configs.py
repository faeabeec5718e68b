"""Triton configurations: from the table of tensors to the ModelConfig protobuf to `config.pbtxt`.

What a model's tensors are stands in `lipsync.tensors`; what it runs on stands in `RUNTIMES` here.
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

from .errors import ExportError

CONFIG_FILE = "config.pbtxt"
NET_FILE = "model.onnx"
_HEADER = "# Generated from lipsync/tensors.py by `python -m export configs`. Change it there, not here.\n"


@dataclass(frozen=True)
class WarmUp:
    """One request of zeros that Triton sends before it calls a model ready."""

    batch: int
    sizes: Mapping[str, tuple[int, ...]]  # input name to shape, where the table's shape varies


@dataclass(frozen=True)
class Net:
    """A neural network, run by the `onnxruntime` backend from `model.onnx`.

    One instance on each GPU, or one on the CPU where there is no GPU (KIND_AUTO), so the same file
    serves both. The count is said because Triton makes two on a CPU by default, and those share the
    cores and double the memory. Requests wait at most `queue_delay_us` for others to share
    their batch with: none where the model does not batch.
    """

    warm_ups: tuple[WarmUp, ...]
    queue_delay_us: int | None = None


@dataclass(frozen=True)
class Python:
    """A `model.py` on the Python backend: one process, always on the CPU."""


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


Runtime = Net | Python | Ensemble

_CROP = Step(tensors.FACE_CROP, {"frames": "frames", "boxes": "boxes", "mel": "mel"}, {"faces": "faces"})


def _speak(net: Model) -> Step:
    return Step(net, {"face": "faces", "mel": "mel"}, {"mouth": "mouths"})


# One wav2lip window is 8 GFLOP (45 ms on two CPU cores, under 1 ms on a GPU), so 2 ms of waiting
# for company cost little and fill batches. A batch of s3fd is full sooner and each picture longer.
_WAV2LIP = Net((WarmUp(1, {}), WarmUp(tensors.WAV2LIP_BATCH, {})), queue_delay_us=2000)

RUNTIMES: Mapping[str, Runtime] = {
    "mel_spectrogram": Python(),
    "s3fd": Net((WarmUp(1, {"image": (240, 320, 3)}),), queue_delay_us=1000),
    "face_nms": Python(),
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
    "face_crop": Python(),
    "wav2lip": _WAV2LIP,
    "wav2lip_gan": _WAV2LIP,
    "lipsync": Ensemble((_CROP, _speak(tensors.WAV2LIP))),
    "lipsync_gan": Ensemble((_CROP, _speak(tensors.WAV2LIP_GAN))),
    "face_paste": Python(),
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
    "segmentation": Net((WarmUp(1, {"image": (384, 512, 3)}),)),
}


def committed() -> Path:
    """The project's `model_repository/`, beside this package whatever the working directory is.

    Raises:
        ExportError: the package was installed without it.
    """
    folder = Path(__file__).parents[1] / "model_repository"
    if not folder.is_dir():
        raise ExportError(
            f"{folder} is missing: the Python models stand there. Run from a checkout of the project "
            "(pip install -e .), not from an installed copy of its packages alone"
        )
    return folder


def config(model: Model, parameters: Mapping[str, str] | None = None) -> pb.ModelConfig:
    """The Triton configuration of a model of the table.

    Args:
        model: one of `lipsync.tensors.MODELS`.
        parameters: strings that go into the configuration's `parameters`.

    Raises:
        KeyError: the model has no entry in `RUNTIMES`.
    """
    result = pb.ModelConfig(name=model.name, max_batch_size=model.max_batch_size)
    result.input.extend(
        pb.ModelInput(name=t.name, data_type=_type(t), dims=t.shape, optional=t.optional) for t in model.inputs
    )
    result.output.extend(pb.ModelOutput(name=t.name, data_type=_type(t), dims=t.shape) for t in model.outputs)
    match RUNTIMES[model.name]:
        case Net() as net:
            _run_net(result, model, net)
        case Python():
            result.backend = "python"
            result.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=1)
        case Ensemble(steps):
            result.platform = "ensemble"
            result.ensemble_scheduling.step.extend(
                pb.ModelEnsembling.Step(
                    model_name=step.model.name, model_version=-1, input_map=step.inputs, output_map=step.outputs
                )
                for step in steps
            )
    for key, value in (parameters or {}).items():
        result.parameters[key].string_value = value
    return result


def render(model: Model, parameters: Mapping[str, str] | None = None) -> str:
    """The text of a model's `config.pbtxt`; arguments and errors as `config`."""
    return _HEADER + str(text_format.MessageToString(config(model, parameters), as_utf8=True))


def write(repository: Path) -> list[Path]:
    """Write every model's `config.pbtxt` into `repository`; give back the files that changed."""
    return [path for model in tensors.MODELS if (path := write_one(model, repository))]


def write_one(model: Model, repository: Path, parameters: Mapping[str, str] | None = None) -> Path | None:
    """Write one model's `config.pbtxt` into `repository`; give back the file if it changed."""
    path, text = repository / model.name / CONFIG_FILE, render(model, parameters)
    if path.is_file() and path.read_text("utf-8") == text:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
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


def _run_net(result: pb.ModelConfig, model: Model, net: Net) -> None:
    result.backend = "onnxruntime"
    result.default_model_filename = NET_FILE
    result.instance_group.add(kind=pb.ModelInstanceGroup.KIND_AUTO, count=1)
    if net.queue_delay_us is not None:
        result.dynamic_batching.max_queue_delay_microseconds = net.queue_delay_us
    for warm_up in net.warm_ups:
        sample = result.model_warmup.add(name=f"batch of {warm_up.batch}", batch_size=warm_up.batch)
        for tensor in model.inputs:
            shape = warm_up.sizes.get(tensor.name, tensor.shape)
            sample.inputs[tensor.name].CopyFrom(
                pb.ModelWarmup.Input(data_type=_type(tensor), dims=shape, zero_data=True)
            )


def _type(tensor: Tensor) -> int:
    return int(pb.DataType.Value(f"TYPE_{tensor.dtype}"))
