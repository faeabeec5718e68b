"""Build a complete Triton model repository from a folder of checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lipsync import tensors
from lipsync.tensors import Model

from ..checkpoints.checkpoint_set import CheckpointSet, find_checkpoints
from ..errors import ExportError
from ..files import ProgressCallback, exclusive_lock
from ..triton_config import model_config
from ..validation.gpu import NO_GPU, Gpu
from ..validation.sample_media import Media
from ..variants import ONNX_FP32, Format, Precision, Profile, Variant, resolve
from . import live_networks, served_configs, trials, versions
from .exported_models import EXPORTED_MODELS, ExportedModel, ExportInputs
from .release import EXPORTED, KNOWN, Release, newest_exports
from .staging import staging_folder
from .versions import REPORT_FILE, Version

if TYPE_CHECKING:
    from .selection import VariantSelector

KEEP = 1  # older versions of a network that are kept


@dataclass(frozen=True)
class BuildOptions:
    """How the networks are exported.

    Attributes:
        profile: the kind of machine that the configs are for.
        format, precision: of `s3fd`, `wav2lip` and `wav2lip_gan`; `variants.resolve` decides what is not given.
            `segmentation` is always ONNX FP32.
        media: the files to calibrate int8 and to evaluate every export with.
        keep: number of older versions of a network to keep.
        timing: whether exports are timed for their reports.
        live_networks: whether the generators are served a second time, for `live` alone; by default on a GPU.
        files: single checkpoints by official name, instead of those of the folder.
        stand_ins: folder for stand-ins, which are used for all checkpoints that are missing; None: none may be.
        trial: the share of the jobs that use new exports, next to the active ones; None makes new exports active.
    """

    profile: Profile = Profile.CPU
    format: Format | None = None
    precision: Precision | None = None
    media: Media = field(default_factory=Media.shipped)
    keep: int = KEEP
    timing: bool = True
    live_networks: bool | None = None
    trial: float | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    stand_ins: Path | None = None

    @property
    def has_live_networks(self) -> bool:
        """Return whether the generators are served a second time."""
        return self.profile is not Profile.CPU if self.live_networks is None else self.live_networks


def build_repository(
    weights: Path | None,
    repository: Path,
    on_progress: ProgressCallback = print,
    options: BuildOptions | None = None,
) -> None:
    """Make `repository` a complete model repository: networks from `weights`, Python models, ensembles, configs.

    What is up to date is not touched, so a second call only hashes the files. A new export becomes the next version of
    its model; `options.keep` older versions are kept.
    In the project's own `model_repository/` only the networks are written: the configs there are committed, are for
    ONNX FP32 on a CPU, and name no checkpoint. Elsewhere the parameters of each network's config name its checkpoint
    and its export.

    Args:
        weights: folder with checkpoints under their official names, all real or all stand-ins.
        repository: folder, created if it does not exist, but not a mount point; models of other names in it are kept.
        on_progress: takes one line of progress at a time.
        options: by default for a CPU, the fastest variant that reaches its accuracy thresholds.

    Raises:
        ExportError: checkpoints are missing, damaged or mixed, or an export is not accurate enough. The older version
            of that model stays in place, and so do networks that were exported before the failure.
    """
    options = options or BuildOptions()
    gpu = NO_GPU if options.profile is Profile.CPU else _find_gpu()
    candidates = resolve(options.profile, options.format, options.precision, gpu.formats)
    source = model_config.committed()
    is_own = repository.resolve() == source.resolve()
    if is_own:
        _check_committed(repository, options, candidates)
    checkpoints = _find_checkpoints(weights, options, on_progress)
    repository.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(repository, on_progress), staging_folder(repository) as staging:
        update = _Update(checkpoints, repository, staging, options, candidates, gpu, on_progress)
        if not is_own:
            update.check_trial()
            served_configs.copy_models(source, repository, options.profile, update.release.share)
        for exported in EXPORTED_MODELS:
            newest = update.bring_up_to_date(exported)
            if not is_own:
                update.serve(exported.model, newest)
        if not is_own:
            update.finish()
        _report_unknown_models(repository, on_progress)
    on_progress(f"{repository}: complete, {len(tensors.MODELS)} models")


def prune(repository: Path, keep: int, on_progress: ProgressCallback = print) -> None:
    """Remove the older versions of every exported network but the newest `keep`, and report each.

    Raises:
        ExportError: the folder does not exist.
    """
    if not repository.is_dir():
        raise ExportError(f"{repository}: no such folder")
    with exclusive_lock(repository, on_progress), staging_folder(repository) as staging:
        tried = Release.read(repository).trial.values()
        for model in (*EXPORTED, *tensors.LIVE_NETWORKS.values()):
            _prune_model(repository / model.name, keep, staging, on_progress, tried)


class _Update:
    """One run of `build_repository`."""

    def __init__(
        self,
        checkpoints: CheckpointSet,
        repository: Path,
        staging: Path,
        options: BuildOptions,
        candidates: tuple[Variant, ...],
        gpu: Gpu,
        on_progress: ProgressCallback,
    ) -> None:
        self._checkpoints, self._repository, self._staging = checkpoints, repository, staging
        self._options, self._candidates, self._gpu, self._on_progress = options, candidates, gpu, on_progress
        self._inputs = ExportInputs(checkpoints, options.media, candidates, gpu.name)
        self.release = Release.read(repository)
        self._staged: dict[str, Path] = {}  # to be tried

    def check_trial(self) -> None:
        """Raise ExportError if a trial that runs, or the one that is asked for, does not allow this run."""
        if self._options.trial is not None:
            trials.check_share(self._options.trial)
            if not self.release.active:
                raise ExportError(f"{self._repository}: nothing is active here yet; export without --trial first")
        for exported in EXPORTED_MODELS if self.release.trial else ():
            name = exported.model.name
            known = (self.release.active.get(name), self.release.trial.get(name))
            if versions.export_name(self._inputs.of(exported)) not in known:
                raise ExportError(f"{self._repository}: {trials.RUNNING}")

    def bring_up_to_date(self, exported: ExportedModel) -> Version:
        """Export the network unless that is done already, prune its older versions, and return the newest."""
        name, model = exported.model.name, self._repository / exported.model.name
        inputs = self._inputs.of(exported)
        export, found = versions.export_name(inputs), versions.list_versions(model)
        same = [version for version in found if version.export == export and version.is_intact()]
        if same and same[-1].folder == found[-1].folder:
            self._on_progress(f"{name}: up to date with {exported.checkpoint}, {_describe(same[-1])}")
        elif same and self.release.trial.get(name) == export:
            self._on_progress(f"{name}: tried, {_describe(same[-1])}")
        elif self._options.trial is None and export in self.release.withdrawn:
            self._on_progress(f"{name}: export {export} was rolled back and stays so; to use it again: --trial")
        else:
            staged = self._staging / name
            if same:
                versions.link(same[-1], staged)
                self._on_progress(f"{name}: reusing an older export, {_describe(same[-1])}")
            else:
                self._export(exported, inputs, staged)
            self._publish(exported.model, staged)
        _prune_model(model, self._options.keep, self._staging, self._on_progress, self.release.trial.values())
        return versions.list_versions(model)[-1]

    def _publish(self, model: Model, staged: Path) -> None:
        folder = self._repository / model.name
        if self._options.trial is None:
            versions.publish(staged, folder)
            return
        found = versions.list_versions(folder)
        if not found:
            raise ExportError(f"{folder}: nothing is active here yet; export without --trial first")
        trials.check_format(model, found[-1], versions.read_version(staged))
        self._staged[model.name] = staged

    def serve(self, model: Model, newest: Version) -> None:
        """Write the configuration of a network, and serve it for `live` as well, if that is wanted; else no longer."""
        tried = trials.tried_version(self._repository / model.name, self.release)
        served_configs.write_network(model, newest, self._repository, self._options.profile, tried)
        live = tensors.LIVE_NETWORKS.get(model.name)
        if live is None or not self._options.has_live_networks:
            if live_networks.remove(model, self._repository, self._staging):
                self._on_progress(f"{model.name}: no longer served a second time for `live`")
            return
        version = live_networks.follow(live, newest, self._repository, self._staging)
        _prune_model(self._repository / live.name, self._options.keep, self._staging, self._on_progress)
        served_configs.write_network(live, version, self._repository, self._options.profile)

    def finish(self) -> None:
        """Write down what is active, and start or change the trial that was asked for."""
        release, share = self.release, self._options.trial
        if not release.trial:
            release = release.activated(newest_exports(self._repository))
        release = replace(release, profile=self._options.profile)
        if share is not None and (self._staged or release.trial):
            trials.begin(self._repository, release, self._staged, share, self._staging, self._on_progress)
            return
        if share is not None:
            self._on_progress("nothing to try: every network is up to date")
        release.write(self._repository)

    def _export(self, exported: ExportedModel, inputs: Mapping[str, object], staged: Path) -> None:
        name, provenance = exported.model.name, self._inputs.provenances[exported.checkpoint]
        self._on_progress(f"{name}: exporting from {exported.checkpoint}")
        started = time.monotonic()
        timed = self._options.timing
        report = self._selector.export(exported.model, provenance, self._candidates, staged, timed=timed)
        for line in report.lines():
            self._on_progress(line)
        (staged / REPORT_FILE).write_text(json.dumps(report.to_json(), indent=2) + "\n", "utf-8")
        outcome = {
            "model": name,
            "checkpoint": exported.checkpoint,
            "checkpoint_sha256": provenance.sha256,
            "weights": provenance.kind,
            "format": report.variant.format.value,
            "precision": report.variant.precision.value,
        }
        versions.write_record(staged, inputs, outcome)
        elapsed = time.monotonic() - started
        self._on_progress(f"{name}: exported as {report.variant} and evaluated, {elapsed:.1f} s")

    @cached_property
    def _selector(self) -> VariantSelector:
        # imported here: if everything is up to date, nothing of it is needed
        from .selection import VariantSelector

        media, folder = self._options.media, self._staging
        return VariantSelector(self._checkpoints, media, folder, self._on_progress, gpu=self._gpu)


def _find_checkpoints(weights: Path | None, options: BuildOptions, on_progress: ProgressCallback) -> CheckpointSet:
    if options.stand_ins:
        from .. import stand_ins  # imports torch

        stand_ins.write(options.stand_ins, on_progress)
    checkpoints = find_checkpoints(weights, options.files, options.stand_ins)
    used = [name for name in checkpoints.paths if name in checkpoints.stand_ins]
    if used:
        names = "" if len(used) == len(checkpoints.paths) else f", for {', '.join(used)}"
        where = f"in {checkpoints.paths[used[0]].parent}{names}"
        on_progress(f"*** STAND-INS, NOT THE PUBLISHED WEIGHTS, {where}: the models run, but show made-up results ***")
    return checkpoints


def _check_committed(repository: Path, options: BuildOptions, candidates: tuple[Variant, ...]) -> None:
    """Raise ExportError if the project's own repository cannot have what is asked for."""
    if options.profile is not Profile.CPU or candidates != (ONNX_FP32,):
        raise ExportError(
            f"{repository}: the configs here are committed and for ONNX fp32 on a CPU; "
            "export into another folder, or with --format onnx --precision fp32"
        )
    if options.trial is not None:
        raise ExportError(f"{repository}: the configs here are committed, so nothing can be tried; use another folder")


def _find_gpu() -> Gpu:
    from ..validation import gpu_runs  # it needs the runtimes

    return gpu_runs.find()


def _describe(version: Version) -> str:
    return f"{version.record['format']} {version.record['precision']}, export {version.export}"


def _prune_model(
    model: Path, keep: int, staging: Path, on_progress: ProgressCallback, tried: Collection[str] = ()
) -> None:
    for removed in versions.prune(model, keep, staging, tried):
        on_progress(f"{model.name}: removed version {removed.number}, keeping {keep} older")


def _report_unknown_models(repository: Path, on_progress: ProgressCallback) -> None:
    names = sorted(path.parent.name for path in repository.glob(f"*/{model_config.CONFIG_FILE}"))
    for name in [name for name in names if name not in KNOWN]:
        on_progress(f"{name}: not one of this project's models, not touched; Triton will load it too")
