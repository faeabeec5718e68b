"""Where the nets of one folder of checkpoints become exports: made, judged, the fastest chosen, timed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from lipsync import tensors
from lipsync.tensors import Model

from ..checkpoints import load
from ..checkpoints.load import CheckpointSet
from ..errors import ExportError
from ..formats.onnx_model import Provenance
from ..networks import random_weights
from ..networks.inference import S3FDGraph, Wav2LipGraph
from ..validation import accuracy, report, samples
from ..validation.accuracy import AccuracyError, Result
from ..validation.report import Report
from ..validation.sample_media import Media
from ..validation.samples import Samples
from ..variants import ONNX_FP32, Variant
from .variant_builder import NETWORK, VariantBuilder

RANDOM = "seeded random"
_RACED_AT = 8  # the batch at which candidates race


class VariantSelector:
    """Exports of the nets in a folder of checkpoints.

    Stand-ins say little about arithmetic: most of their weights are zero. So with them every export is judged a
    second time, made the same way from the same network with seeded random weights, and timed on that.

    Args:
        found: the checkpoints.
        media: what int8 is calibrated and every export judged with.
        folder: to work in.
        on_progress: takes one line of progress at a time.
    """

    def __init__(self, found: CheckpointSet, media: Media, folder: Path, on_progress: Callable[[str], None]) -> None:
        self._found, self._media, self._folder, self._on_progress = found, media, folder, on_progress
        self._judged: dict[tuple[str, Variant], list[Result]] = {}
        self._doubles: dict[str, VariantBuilder] = {}
        self._race: dict[str, list[Variant]] = {}
        self._times: dict[tuple[str, Variant], dict[str, list[float]]] = {}

    def export(
        self, model: Model, provenance: Provenance, candidates: Sequence[Variant], target: Path, *, timed: bool
    ) -> Report:
        """Make `target` a folder with the files of the model's export; gives back what is known of it.

        Of several candidates the fastest that reaches its bars is taken; one that does not is named and left out.

        Raises:
            BarMissed: no candidate reaches its bars.
            ExportError: the checkpoint or the media cannot be used.
        """
        if model is tensors.SEGMENTATION:
            return self._export_segmentation(provenance, target)
        maker = self._maker(model, self._graph(model), provenance, provenance.kind)
        try:
            chosen, results = self._choose(model, maker, candidates)
            times = self._time(model, maker, chosen) if timed else {}
            size = sum(file.stat().st_size for file in maker.build(chosen).iterdir())
            maker.build(chosen).rename(target)
        finally:
            shutil.rmtree(self._folder / f"{model.name}-{provenance.kind}", ignore_errors=True)
        return Report(model, chosen, results, times, size, report.machine())

    def _choose(
        self, model: Model, maker: VariantBuilder, candidates: Sequence[Variant]
    ) -> tuple[Variant, list[Result]]:
        """The fastest candidate that reaches its bars, and what it reaches; slower ones are not even judged."""
        missed = []
        for variant in self._by_speed(model, maker, candidates):
            self._on_progress(f"{model.name}: making and judging {variant}")
            results = [*maker.evaluate(variant), *self._judge_double(model, variant)]
            try:
                accuracy.check_thresholds(model, variant, results)
            except AccuracyError as error:
                missed.append(str(error))
                self._on_progress(str(error))
            else:
                return variant, results
        raise AccuracyError("; ".join(missed))

    def _judge_double(self, model: Model, variant: Variant) -> list[Result]:
        if not self._found.stand_ins:
            return []
        net = _network(model)
        if (net.name, variant) not in self._judged:
            self._judged[net.name, variant] = self._double(net).evaluate(variant)
        return self._judged[net.name, variant]

    def _by_speed(self, model: Model, maker: VariantBuilder, candidates: Sequence[Variant]) -> list[Variant]:
        """The candidates, fastest first; the two Wav2Lips are one network, and race once."""
        if len(candidates) == 1:
            return list(candidates)
        net = _network(model)
        if net.name not in self._race:
            self._on_progress(f"{model.name}: making {', '.join(map(str, candidates))} for a race")
            runner, batch = self._timed(model, maker), samples.timing(model, _RACED_AT)
            took = {variant: report.seconds(runner.run(variant), batch) for variant in candidates}
            self._race[net.name] = sorted(candidates, key=lambda variant: took[variant])
            times = ", ".join(f"{v} {1000 * took[v] / _RACED_AT:.1f}" for v in self._race[net.name])
            self._on_progress(f"{model.name}: ms a frame in batches of {_RACED_AT}: {times}")
        return self._race[net.name]

    def _time(self, model: Model, maker: VariantBuilder, chosen: Variant) -> dict[str, list[float]]:
        net = _network(model)
        if (net.name, chosen) not in self._times:
            runner = self._timed(model, maker)
            runs = {NETWORK: runner.network(), "onnxruntime fp32": runner.run(ONNX_FP32)}
            if chosen != ONNX_FP32:
                runs[str(chosen)] = runner.run(chosen)
            self._times[net.name, chosen] = report.time_runs(model, runs)
        return self._times[net.name, chosen]

    def _timed(self, model: Model, maker: VariantBuilder) -> VariantBuilder:
        """Whose exports to time: not a stand-in's, whose many zeros make PyTorch slower than it is."""
        return self._double(_network(model)) if self._found.stand_ins else maker

    def _double(self, net: Model) -> VariantBuilder:
        """The same network with random weights."""
        if net.name not in self._doubles:
            graph = S3FDGraph(random_weights.s3fd()) if net is tensors.S3FD else Wav2LipGraph(random_weights.wav2lip())
            self._doubles[net.name] = self._maker(net, graph, Provenance("0" * 64, stand_in=True), RANDOM)
        return self._doubles[net.name]

    def _maker(
        self, model: Model, graph: Wav2LipGraph | S3FDGraph, provenance: Provenance, weights: str
    ) -> VariantBuilder:
        return VariantBuilder(
            model,
            graph,
            provenance,
            weights,
            calibration=lambda: self._samples.calibration(model),
            verification=self._samples.verification(model),
            folder=self._folder / f"{model.name}-{weights}",
        )

    def _graph(self, model: Model) -> Wav2LipGraph | S3FDGraph:
        if model is tensors.S3FD:
            return self._detector
        name = load.WAV2LIP_FILE if model is tensors.WAV2LIP else load.WAV2LIP_GAN_FILE
        return Wav2LipGraph(load.load_wav2lip(self._found.paths[name]))

    @cached_property
    def _detector(self) -> S3FDGraph:
        return S3FDGraph(load.load_s3fd(self._found.paths[load.S3FD_FILE])).eval()

    @cached_property
    def _samples(self) -> Samples:
        return Samples(self._media, self._detector, self._on_progress)

    def _export_segmentation(self, provenance: Provenance, target: Path) -> Report:
        from ..formats.tensorflow import export_segmentation

        target.mkdir()
        file = target / ONNX_FP32.format.file
        results = export_segmentation(self._found.paths[load.SEGMENTATION_FILE], file, provenance)
        if not all(result.passed for result in results):
            raise ExportError("segmentation: its labels differ from TensorFlow's")
        return Report(tensors.SEGMENTATION, ONNX_FP32, results, {}, file.stat().st_size, report.machine())


def _network(model: Model) -> Model:
    """The table's entry that stands for all models of one network."""
    return tensors.WAV2LIP if model is tensors.WAV2LIP_GAN else model
