"""The protocol through which the job calls the models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from lipsync import tensors, trial
from lipsync.arrays import Floats, Images, Labels
from lipsync.tensors import Model

from ..options import Generator

GENERATORS = {Generator.WAV2LIP: tensors.WAV2LIP, Generator.WAV2LIP_GAN: tensors.WAV2LIP_GAN}


@dataclass(frozen=True)
class ServedNet:
    """How a network is served.

    Attributes:
        max_batch: largest number of rows of one call.
        on_gpu: whether it runs on a GPU.
    """

    max_batch: int
    on_gpu: bool = False

    @classmethod
    def least(cls, nets: Sequence[ServedNet]) -> ServedNet:
        """Return what each of several servers can do."""
        return cls(min(each.max_batch for each in nets), all(each.on_gpu for each in nets))


@dataclass(frozen=True)
class ServedModel:
    """What a model's served configuration says.

    Attributes:
        parameters: its string parameters.
        max_batch: its `max_batch_size`; 0 where it is not known.
        on_gpu: whether an instance runs on a GPU.
    """

    parameters: Mapping[str, str] = field(default_factory=dict)
    max_batch: int = 0
    on_gpu: bool = False

    def tried(self) -> ServedModel:
        """Return the same with the facts about the version that is tried."""
        names = {"export": trial.EXPORT, "checkpoint": trial.CHECKPOINT}
        facts = {name: self.parameters.get(source, "") for name, source in names.items()}
        return replace(self, parameters={**self.parameters, **facts})


@dataclass(frozen=True)
class ModelInfo:
    """What the models were exported from.

    Attributes:
        stand_ins: names of the models whose checkpoint is a stand-in; empty with real weights.
        detector, segmenter: names of the exports; another export has another name. Empty where it is not known.
        generator_net, detector_net: how these networks are served; where it is not known, as on a CPU.
        versions: the version that calls of a network name, by its name; others get the newest that is served.
        trial: what a share of the jobs gets instead; None without one.
    """

    stand_ins: tuple[str, ...] = ()
    detector: str = ""
    segmenter: str = ""
    generator_net: ServedNet = ServedNet(tensors.WAV2LIP_BATCH)
    detector_net: ServedNet = ServedNet(tensors.S3FD_BATCH)
    versions: Mapping[str, str] = field(default_factory=dict)
    trial: Trial | None = None

    def chosen(self, job: str) -> ModelInfo:
        """Return what a job uses: of the trial for its share of the jobs, and always the same for one job's id."""
        position = int.from_bytes(hashlib.sha256(job.encode()).digest()[:8]) / 2**64
        return self.trial.info if self.trial and position < self.trial.share else self

    @classmethod
    def shared(cls, infos: Sequence[ModelInfo]) -> ModelInfo:
        """Return what holds for each of several servers, which may differ while one after the other is replaced.

        Where the exports differ, their joined names are another name: what is cached under it belongs to none of them.
        """
        return cls(
            tuple(dict.fromkeys(name for each in infos for name in each.stand_ins)),
            detector="|".join(sorted({each.detector for each in infos})),
            segmenter="|".join(sorted({each.segmenter for each in infos})),
            generator_net=ServedNet.least([each.generator_net for each in infos]),
            detector_net=ServedNet.least([each.detector_net for each in infos]),
            versions=infos[0].versions,
            trial=Trial.shared([each.trial for each in infos]),
        )

    @classmethod
    def of(cls, generator: Model, served: Mapping[str, ServedModel]) -> ModelInfo:
        """Return what the configurations of these models say: `described_by(generator)`, by name."""
        return replace(cls._active(generator, served), trial=Trial.of(generator, served))

    @classmethod
    def _active(cls, generator: Model, served: Mapping[str, ServedModel]) -> ModelInfo:
        def net(model: Model) -> ServedNet:
            config = served[model.name]
            return ServedNet(config.max_batch or model.max_batch_size, config.on_gpu)

        return cls(
            tuple(name for name, model in served.items() if model.parameters.get("checkpoint") == "stand-in"),
            detector=served[tensors.S3FD.name].parameters.get("export", ""),
            segmenter=served[tensors.SEGMENTATION.name].parameters.get("export", ""),
            generator_net=net(generator),
            detector_net=net(tensors.S3FD),
        )


@dataclass(frozen=True)
class Trial:
    """Other versions of some networks, for a share of the jobs (docs/adr/0048).

    Attributes:
        share: of the jobs, from 0 to 1.
        info: what a job of the trial is served, with the versions that its calls name.
    """

    share: float
    info: ModelInfo

    @classmethod
    def of(cls, generator: Model, served: Mapping[str, ServedModel]) -> Trial | None:
        """Return the trial that the configurations of these models describe, if there is one."""
        tried = {name: model.tried() for name, model in served.items() if trial.VERSION in model.parameters}
        share = _share(served[tensors.DETECT_FACES.name].parameters) if tensors.DETECT_FACES.name in served else 0.0
        if not share or not tried:
            return None
        versions = {name: model.parameters[trial.VERSION] for name, model in tried.items()}
        return cls(share, replace(ModelInfo._active(generator, {**served, **tried}), versions=versions))

    @classmethod
    def shared(cls, trials: Sequence[Trial | None]) -> Trial | None:
        """Return the trial of several servers; None if they differ, as while one after the other changes."""
        found = [each for each in trials if each]
        if len(found) < len(trials) or any(each.identity != found[0].identity for each in found):
            return None
        return cls(found[0].share, ModelInfo.shared([each.info for each in found]))

    @property
    def identity(self) -> tuple[object, ...]:
        """Return what must be the same on all servers."""
        return self.share, sorted(self.info.versions.items()), self.info.detector, self.info.segmenter


def _share(parameters: Mapping[str, str]) -> float:
    try:
        return min(1.0, max(0.0, float(parameters.get(trial.SHARE, "0"))))
    except ValueError:
        return 0.0


def described_by(generator: Model) -> tuple[Model, ...]:
    """Return the models whose configurations `ModelInfo.of` needs."""
    return tensors.S3FD, generator, tensors.SEGMENTATION, tensors.DETECT_FACES


class InferenceClient(Protocol):
    """The models of the repository, as `lipsync.tensors` describes them.

    Every call may raise `avatar.errors.Unavailable` (down, not ready, too slow) and
    `lipsync.errors.InvalidInput` (an array of the wrong shape or type).
    """

    async def check_ready(self) -> None:
        """Return when every model is ready; raise Unavailable at once when one is not."""

    async def model_info(self, generator: Generator) -> ModelInfo:
        """Return what the models that a job with this generator uses were exported from."""

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """Return the mel windows FP32 [frames,80,16] of speech FP32 [n] at 16 kHz."""

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        """Images UINT8 [n,H,W,3] BGR to boxes [n,16,4] and scores [n,16]; n is at most `detector_net.max_batch`."""

    async def wav2lip(self, faces: Images, windows: Floats, generator: Generator) -> Images:
        """Return generated faces UINT8 [n,96,96,3] for cropped faces UINT8 [n,96,96,3] and windows FP32 [n,80,16].

        n is at most `generator_net.max_batch`. `faces` may be a view that repeats one face.
        """

    async def segment(self, image: Images) -> Labels:
        """Return the labels INT32 [H,W] of an image UINT8 [H,W,3] RGB."""

    def pinned(self, versions: Mapping[str, str]) -> InferenceClient:
        """Return a view of this client whose calls of these networks name a version; it is not closed.

        Where a version is no longer served, the newest one answers: a trial may end while a job runs.
        """

    async def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True)
class ServerState:
    """What is known of one server, for metrics and readiness.

    Attributes:
        address: host:port.
        healthy: whether it gets calls.
        calls, failures: inferences that were sent to it, and those of them that it did not answer.
        in_flight: inferences that have no response yet.
    """

    address: str
    healthy: bool
    calls: int
    failures: int
    in_flight: int


@runtime_checkable
class ReportsServers(Protocol):
    """An `InferenceClient` that knows its servers."""

    def servers(self) -> Sequence[ServerState]:
        """Return the state of each server."""
