"""Export the networks of a set of checkpoints: of several candidates the fastest accurate one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from lipsync import tensors
from lipsync.tensors import Model

from ..checkpoints import load
from ..checkpoints.checkpoint_set import CheckpointSet
from ..checkpoints.provenance import Provenance
from ..checkpoints.registry import S3FD_FILE, SEGMENTATION_FILE, WAV2LIP_FILE, WAV2LIP_GAN_FILE
from ..files import ProgressCallback, atomic_write
from ..networks import random_weights
from ..networks.inference import S3FDGraph, Wav2LipGraph
from ..validation import accuracy, samples, timing
from ..validation.accuracy import AccuracyError, Result
from ..validation.gpu import NO_GPU, Gpu
from ..validation.report import Report
from ..validation.sample_media import Media
from ..validation.samples import Samples
from ..validation.stored_samples import SAMPLES_FILE
from ..variants import ONNX_FP32, Format, Variant
from .variant_builder import NETWORK, VariantBuilder

RANDOM = "seeded random"
_CHECKPOINTS = {
    tensors.S3FD.name: S3FD_FILE,
    tensors.WAV2LIP.name: WAV2LIP_FILE,
    tensors.WAV2LIP_GAN.name: WAV2LIP_GAN_FILE,
}
# Batch sizes at which the candidates are timed: on a GPU those that several callers make together.
_RANKING_BATCH = 8
_GPU_RANKING_BATCHES = {tensors.S3FD.name: 4, tensors.WAV2LIP.name: 64}


class VariantSelector:
    """Exports the networks of a set of checkpoints.

    Most weights of a stand-in are zero, so its outputs reveal little about arithmetic errors. Therefore with stand-ins
    every variant is built and evaluated a second time, from the same network with seeded random weights, its random
    twin. The twin is also the one that is timed.

    Args:
        checkpoints: the checkpoints.
        media: the files for calibration and evaluation.
        folder: a folder to work in.
        on_progress: takes one line of progress at a time.
        builder: builds the variants of a network.
        batches: the batch sizes at which the chosen variant is timed.
        gpu: runs what it can; the network itself, with which everything is compared, runs on the CPU.
    """

    def __init__(
        self,
        checkpoints: CheckpointSet,
        media: Media,
        folder: Path,
        on_progress: ProgressCallback,
        *,
        builder: type[VariantBuilder] = VariantBuilder,
        batches: Sequence[int] = timing.BATCHES,
        gpu: Gpu = NO_GPU,
    ) -> None:
        self._checkpoints, self._media, self._folder, self._on_progress = checkpoints, media, folder, on_progress
        self._builder_type, self._batches, self._gpu = builder, batches, gpu
        self._warm_up = timing.GPU_WARM_UP if gpu.name else 1
        self._twin_results: dict[tuple[str, Variant], list[Result]] = {}
        self._twins: dict[str, VariantBuilder] = {}
        self._rankings: dict[str, list[Variant]] = {}
        self._times: dict[tuple[str, Variant], dict[str, list[float]]] = {}

    def export(
        self, model: Model, provenance: Provenance, candidates: Sequence[Variant], target: Path, *, timed: bool
    ) -> Report:
        """Export a model into the new folder `target`, and return the report.

        Of several candidates the fastest that reaches its thresholds is taken; one that does not is reported.

        Raises:
            AccuracyError: no candidate reaches its thresholds.
            ExportError: the checkpoint or the media cannot be used.
        """
        if model is tensors.SEGMENTATION:
            return self._export_segmentation(provenance, target)
        builder = self._builder(model, self._graph(model), provenance, provenance.kind)
        try:
            chosen, results = self._choose(model, builder, candidates)
            is_plan = chosen.format is Format.TENSORRT  # which is timed where it is built, if at all
            times = self._time(model, builder, chosen) if timed and not is_plan else {}
            size = sum(file.stat().st_size for file in builder.build(chosen).iterdir())
            if is_plan:
                builder.save_samples(builder.build(chosen) / SAMPLES_FILE)
            builder.build(chosen).rename(target)
        finally:
            shutil.rmtree(self._folder / f"{model.name}-{provenance.kind}", ignore_errors=True)
        return Report(model, chosen, results, times, size, timing.machine(self._gpu.name), self._batches)

    def _choose(
        self, model: Model, builder: VariantBuilder, candidates: Sequence[Variant]
    ) -> tuple[Variant, list[Result]]:
        """Return the fastest candidate that reaches its thresholds, with its results. Slower ones are not evaluated."""
        failures = []
        for variant in self._ranking(model, builder, candidates):
            self._on_progress(f"{model.name}: building and evaluating {variant}")
            results = [*builder.evaluate(variant), *self._evaluate_twin(model, variant)]
            try:
                accuracy.check_thresholds(model, variant, results)
            except AccuracyError as error:
                failures.append(str(error))
                self._on_progress(str(error))
            else:
                return variant, results
        raise AccuracyError("; ".join(failures))

    def _evaluate_twin(self, model: Model, variant: Variant) -> list[Result]:
        if not self._is_stand_in(model):
            return []
        network = _network(model)
        if (network.name, variant) not in self._twin_results:
            self._twin_results[network.name, variant] = self._random_twin(network).evaluate(variant)
        return self._twin_results[network.name, variant]

    def _ranking(self, model: Model, builder: VariantBuilder, candidates: Sequence[Variant]) -> list[Variant]:
        """Return the candidates, fastest first. The two Wav2Lip models are one network and are timed once."""
        if len(candidates) == 1:
            return list(candidates)
        network = _network(model)
        if network.name not in self._rankings:
            self._on_progress(f"{model.name}: building {', '.join(map(str, candidates))} to compare their speed")
            size = _GPU_RANKING_BATCHES[network.name] if self._gpu.name else _RANKING_BATCH
            timed, batch = self._timed_builder(model, builder), samples.timing(model, size)
            times = {variant: timing.seconds(timed.run(variant), batch, self._warm_up) for variant in candidates}
            ranking = sorted(candidates, key=lambda variant: times[variant])
            self._rankings[network.name] = ranking
            numbers = ", ".join(f"{variant} {1000 * times[variant] / size:.3g}" for variant in ranking)
            self._on_progress(f"{model.name}: ms per frame in batches of {size}: {numbers}")
        return self._rankings[network.name]

    def _time(self, model: Model, builder: VariantBuilder, chosen: Variant) -> dict[str, list[float]]:
        network = _network(model)
        if (network.name, chosen) not in self._times:
            timed = self._timed_builder(model, builder)
            reference = f"{NETWORK} on the CPU" if self._gpu.name else NETWORK
            runs = {reference: timed.network(), "onnxruntime fp32": timed.run(ONNX_FP32)}
            if chosen != ONNX_FP32:
                runs[str(chosen)] = timed.run(chosen)
            self._times[network.name, chosen] = timing.time_runs(model, runs, self._batches, self._warm_up)
        return self._times[network.name, chosen]

    def _timed_builder(self, model: Model, builder: VariantBuilder) -> VariantBuilder:
        """Return the builder whose exports are timed: not a stand-in's, whose many zeros slow PyTorch down."""
        return self._random_twin(_network(model)) if self._is_stand_in(model) else builder

    def _is_stand_in(self, model: Model) -> bool:
        return _CHECKPOINTS[model.name] in self._checkpoints.stand_ins

    def _random_twin(self, network: Model) -> VariantBuilder:
        """Return the builder of the same network with random weights."""
        if network.name not in self._twins:
            is_s3fd = network is tensors.S3FD
            graph = S3FDGraph(random_weights.s3fd()) if is_s3fd else Wav2LipGraph(random_weights.wav2lip())
            self._twins[network.name] = self._builder(network, graph, Provenance("0" * 64, stand_in=True), RANDOM)
        return self._twins[network.name]

    def _builder(
        self, model: Model, graph: Wav2LipGraph | S3FDGraph, provenance: Provenance, weights: str
    ) -> VariantBuilder:
        return self._builder_type(
            model,
            graph,
            provenance,
            weights,
            calibration=lambda: self._samples.calibration(model),
            evaluation=self._samples.evaluation(model),
            folder=self._folder / f"{model.name}-{weights}",
            gpu=self._gpu,
        )

    def _graph(self, model: Model) -> Wav2LipGraph | S3FDGraph:
        if model is tensors.S3FD:
            return self._detector
        return Wav2LipGraph(load.load_wav2lip(self._checkpoints.paths[_CHECKPOINTS[model.name]]))

    @cached_property
    def _detector(self) -> S3FDGraph:
        return S3FDGraph(load.load_s3fd(self._checkpoints.paths[S3FD_FILE])).eval()

    @cached_property
    def _samples(self) -> Samples:
        return Samples(self._media, self._detector, self._on_progress)

    def _export_segmentation(self, provenance: Provenance, target: Path) -> Report:
        file = target / ONNX_FP32.format.file
        result = export_segmentation(self._checkpoints.paths[SEGMENTATION_FILE], file, provenance)
        return Report(tensors.SEGMENTATION, ONNX_FP32, [result], {}, file.stat().st_size, timing.machine())


def export_segmentation(checkpoint: Path, path: Path, provenance: Provenance) -> Result:
    """Export a frozen TensorFlow graph to the ONNX file `path`, and return how its labels compare.

    Raises:
        ExportError: the checkpoint is not PixelLib's graph, or the labels differ from TensorFlow's; nothing is written.
    """
    from ..formats.tensorflow import FrozenGraph
    from ..validation import segmentation

    frozen = FrozenGraph(checkpoint)
    with atomic_write(path) as temporary:
        frozen.save_onnx(temporary, provenance)
        return segmentation.compare(frozen, temporary, provenance.kind)


def _network(model: Model) -> Model:
    """Return the table's entry that represents all models of one network."""
    return tensors.WAV2LIP if model is tensors.WAV2LIP_GAN else model
