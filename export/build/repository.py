"""A complete Triton model repository from a folder of checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import lipsync
from lipsync import tensors
from lipsync.tensors import Model

from ..checkpoints import load
from ..checkpoints.load import CheckpointSet, sha256
from ..errors import ExportError
from ..files import atomic_write, exclusive_lock
from ..formats.onnx_model import Provenance
from ..triton_config import model_config
from ..validation.sample_media import Media
from ..variants import ONNX_FP32, Format, Precision, Profile, Variant, resolve
from . import versions
from .versions import REPORT_FILE, Version

ProgressCallback = Callable[[str], None]

VERSION = "1"  # the one version of the Python models and the ensembles
KEEP = 1  # older versions of a net that stay beside the newest
_PACKAGE = Path(__file__).parents[1]
_ARITHMETIC = Path(lipsync.__file__).parent


@dataclass(frozen=True)
class BuildOptions:
    """How the nets are exported.

    Attributes:
        profile: the machine that the configs are for.
        format, precision: of `s3fd`, `wav2lip` and `wav2lip_gan`; what is left out is decided by
            `variants.resolve`. `segmentation` is ONNX FP32 always.
        media: what int8 is calibrated and every export verified with.
        keep: older versions of a net that stay.
        timing: whether exports are timed for their reports.
    """

    profile: Profile = Profile.CPU
    format: Format | None = None
    precision: Precision | None = None
    media: Media = field(default_factory=Media.shipped)
    keep: int = KEEP
    timing: bool = True


@dataclass(frozen=True)
class ExportedModel:
    """One exported net.

    Attributes:
        model: its entry in the table.
        checkpoint: the official name of its weights.
        code: the source files that decide what the export looks like.
        packages: those whose version decides it too.
    """

    model: Model
    checkpoint: str
    code: tuple[Path, ...]
    packages: tuple[str, ...]


_PICKLED = (
    _PACKAGE / "checkpoints" / "load.py",
    _PACKAGE / "build" / "variant_builder.py",
    _PACKAGE / "validation" / "samples.py",
    *(
        _PACKAGE / "formats" / f"{name}.py"
        for name in ("onnx_export", "onnx_model", "openvino_ir", "quantize", "torchscript")
    ),
    *(_PACKAGE / "networks" / f"{name}.py" for name in ("inference", "s3fd", "wav2lip")),
    *(_ARITHMETIC / name for name in ("face_detection.py", "tensors.py")),
)
_FROZEN = (*(_PACKAGE / "formats" / name for name in ("onnx_model.py", "tensorflow.py")), _ARITHMETIC / "tensors.py")
_TORCH = ("nncf", "onnx", "onnxruntime", "openvino", "torch")

NETS = (
    ExportedModel(tensors.S3FD, load.S3FD_FILE, _PICKLED, _TORCH),
    ExportedModel(tensors.WAV2LIP, load.WAV2LIP_FILE, _PICKLED, _TORCH),
    ExportedModel(tensors.WAV2LIP_GAN, load.WAV2LIP_GAN_FILE, _PICKLED, _TORCH),
    ExportedModel(tensors.SEGMENTATION, load.SEGMENTATION_FILE, _FROZEN, ("onnx", "tensorflow-cpu", "tf2onnx")),
)


def build_repository(
    weights: Path, repository: Path, on_progress: ProgressCallback = print, options: BuildOptions | None = None
) -> None:
    """Make `repository` a complete model repository: nets from `weights`, Python models, ensembles, configs.

    What is up to date already is left as it is, so a second call costs no more than hashing the files. A net that
    is exported anew becomes the next version of its model; `options.keep` older ones stay.
    In the project's own `model_repository/` only the nets are written: the configs there are committed, are of
    ONNX FP32 on a CPU, and name no checkpoint. Elsewhere each net's config says which checkpoint it runs on and
    as what it was exported, in its parameters.

    Args:
        weights: folder with the four checkpoints under their official names, all real or all stand-ins.
        repository: folder, made when it is not there, but no mount point; models of other names in it are left alone.
        on_progress: takes one line of progress at a time.
        options: how; by default for a CPU, the fastest variant that reaches its bars.

    Raises:
        ExportError: checkpoints are missing, broken or mixed, or an export is below its bar; what was there
            before stays then, and nets that were done before the failure are in place.
    """
    options = options or BuildOptions()
    candidates = resolve(options.profile, options.format, options.precision)
    source = model_config.committed()
    elsewhere = repository.resolve() != source.resolve()
    if not elsewhere and (options.profile is not Profile.CPU or candidates != (ONNX_FP32,)):
        raise ExportError(
            f"{repository}: the configs here are committed and of ONNX fp32 on a CPU; "
            "export into another folder, or with --format onnx --precision fp32"
        )
    found = load.find_checkpoints(weights)
    if found.stand_ins:
        on_progress(
            f"*** STAND-INS, NOT THE PUBLISHED WEIGHTS, in {weights}: the models run, what they show is made up ***"
        )
    repository.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(repository, on_progress), _staging(repository) as staging:
        work = _Work(found, repository, staging, options, candidates, on_progress)
        if elsewhere:
            _copy_models(source, repository, options.profile)
        for net in NETS:
            newest = work.bring_up_to_date(net)
            if elsewhere:
                _write_config(net, newest, repository, options)
        _name_strangers(repository, on_progress)
    on_progress(f"{repository}: complete, {len(tensors.MODELS)} models")


def prune(repository: Path, keep: int, on_progress: ProgressCallback = print) -> None:
    """Remove the older versions of every exported net but `keep`, and say which.

    Raises:
        ExportError: no such folder.
    """
    if not repository.is_dir():
        raise ExportError(f"{repository}: no such folder")
    with exclusive_lock(repository, on_progress), _staging(repository) as staging:
        for net in NETS:
            for gone in versions.prune(repository / net.model.name, keep, staging):
                on_progress(f"{net.model.name}: version {gone.number} removed, {keep} older kept")


class _Work:
    """One run of `build`."""

    def __init__(
        self,
        found: CheckpointSet,
        repository: Path,
        staging: Path,
        options: BuildOptions,
        candidates: tuple[Variant, ...],
        on_progress: ProgressCallback,
    ) -> None:
        self._found, self._repository, self._staging, self._on_progress = found, repository, staging, on_progress
        self._options, self._candidates = options, candidates
        self._provenances = {name: Provenance(sha256(path), found.stand_ins) for name, path in found.paths.items()}
        self._studio: Any = None

    def bring_up_to_date(self, net: ExportedModel) -> Version:
        """The newest version of the net, exported now unless it is there; the folder holds at most `keep` older."""
        model, checkpoint = self._repository / net.model.name, self._found.paths[net.checkpoint]
        inputs = self._inputs(net)
        there = [version for version in versions.list_versions(model) if version.export == versions.export_name(inputs)]
        there = [version for version in there if version.is_intact()]
        if there and there[-1].folder == versions.list_versions(model)[-1].folder:
            self._on_progress(f"{net.model.name}: up to date with {checkpoint.name}, {_described(there[-1])}")
        else:
            staged = self._staging / net.model.name
            if there:
                versions.link(there[-1], staged)
                self._on_progress(f"{net.model.name}: as exported before, {_described(there[-1])}")
            else:
                self._export(net, checkpoint, inputs, staged)
            versions.publish(staged, model)
        for gone in versions.prune(model, self._options.keep, self._staging):
            self._on_progress(f"{net.model.name}: version {gone.number} removed, {self._options.keep} older kept")
        return versions.list_versions(model)[-1]

    @cached_property
    def _media(self) -> dict[str, list[str]]:
        return self._options.media.hashes()

    def _inputs(self, net: ExportedModel) -> dict[str, Any]:
        """Everything that decides what the export is."""
        inputs: dict[str, Any] = {
            "checkpoint": {net.checkpoint: self._provenances[net.checkpoint].sha256},
            "stand_in": self._found.stand_ins,
            "project": lipsync.__version__,
            "code": {str(path.relative_to(_PACKAGE.parent)): sha256(path) for path in net.code},
            "packages": {name: installed(name) for name in net.packages},
        }
        if net.model is tensors.SEGMENTATION:
            return inputs
        inputs["candidates"] = [str(variant) for variant in self._candidates]
        if any(variant.precision is Precision.INT8 for variant in self._candidates):
            # the faces to calibrate with are found by the detector
            inputs["calibration"] = self._media | {"detector": self._provenances[load.S3FD_FILE].sha256}
        if len(self._candidates) > 1:
            from ..validation import report

            inputs["machine"] = report.machine()  # which of them is the fastest is measured on it
        return inputs

    def _export(self, net: ExportedModel, checkpoint: Path, inputs: Mapping[str, Any], staged: Path) -> None:
        # imported here: a run that finds everything up to date needs none of it
        from .selection import VariantSelector

        provenance = self._provenances[net.checkpoint]
        self._on_progress(f"{net.model.name}: exporting from {checkpoint.name}")
        started = time.monotonic()
        self._studio = self._studio or VariantSelector(
            self._found, self._options.media, self._staging, self._on_progress
        )
        report = self._studio.export(net.model, provenance, self._candidates, staged, timed=self._options.timing)
        for line in report.lines():
            self._on_progress(line)
        (staged / REPORT_FILE).write_text(json.dumps(report.to_json(), indent=2) + "\n", "utf-8")
        outcome = {
            "model": net.model.name,
            "checkpoint": net.checkpoint,
            "checkpoint_sha256": provenance.sha256,
            "weights": provenance.kind,
            "format": report.variant.format.value,
            "precision": report.variant.precision.value,
        }
        versions.write_record(staged, inputs, outcome)
        self._on_progress(
            f"{net.model.name}: exported as {report.variant} and checked, {time.monotonic() - started:.1f} s"
        )


def _described(version: Version) -> str:
    return f"{version.record['format']} {version.record['precision']}, export {version.export}"


def _write_config(net: ExportedModel, version: Version, repository: Path, options: BuildOptions) -> None:
    record = version.record
    variant = Variant(Format(record["format"]), Precision(record["precision"]))
    parameters = {
        "checkpoint": record["weights"],
        "checkpoint_sha256": record["checkpoint_sha256"],
        "export": version.export,
        "precision": record["precision"],
    }
    model_config.write_one(net.model, repository, parameters, variant=variant, profile=options.profile)


def _copy_models(source: Path, repository: Path, profile: Profile) -> None:
    """Bring what is no export: Python models, the ensembles' empty version folders, their configs."""
    nets = {net.model.name for net in NETS}
    for model in tensors.MODELS:
        if model.name in nets:
            continue
        (repository / model.name / VERSION).mkdir(parents=True, exist_ok=True)
        for file in (source / model.name / VERSION).glob("*.py"):
            copy = repository / model.name / VERSION / file.name
            if not copy.is_file() or copy.read_bytes() != file.read_bytes():
                with atomic_write(copy) as temporary:
                    shutil.copyfile(file, temporary)
        model_config.write_one(model, repository, profile=profile)


def _name_strangers(repository: Path, on_progress: ProgressCallback) -> None:
    known = {model.name for model in tensors.MODELS}
    strangers = sorted(path.parent.name for path in repository.glob(f"*/{model_config.CONFIG_FILE}"))
    for name in [name for name in strangers if name not in known]:
        on_progress(f"{name}: not one of this project's models, left alone; Triton will load it too")


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """A folder beside the repository, where nothing polls, on its file system, so that a rename can move out of it.

    Raises:
        ExportError: the repository is a mount point, so that nothing can be renamed into it.
    """
    real = repository.resolve()
    if os.path.ismount(real):
        raise ExportError(f"{repository} is a mount point: versions come in by a rename; use a folder inside it")
    prefix, suffix = f".{real.name}.", ".staging"
    for stale in real.parent.glob(f"{prefix}*{suffix}"):
        shutil.rmtree(stale)  # of an export that was killed: whoever holds the repository is alone here
    with tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=real.parent) as folder:
        yield Path(folder)
