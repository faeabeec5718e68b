"""What a run of `python -m bench gpu` measures, and where: its options and its scale."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from avatar_client.access import Token
from export.variants import Format, Precision, Profile, Variant

from ..comparison.workloads import WORKLOADS, Goals, Kind, Workload
from .callers import Load
from .transport import Memory

GIVEN = "repository"  # in place of a format: the models of `--repository`, or those of the server at `--url`
LIVE_GOAL_SESSIONS = 8


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        seconds: duration of one load, after `warm_up` seconds.
        batches: frames per run of the bare network, and per request of `callers` callers.
        callers: concurrent requests of the loads in `batches`.
        sweep: further numbers of callers, each with every batch of `sweep_batches`.
        rounds: of the clips.
        video, many: the clips: one at a time against the original algorithm, and many at once against x264 alone.
        sessions: numbers of concurrent live sessions, each of `live_seconds`.
    """

    seconds: float
    warm_up: float
    batches: tuple[int, ...]
    callers: int
    sweep: tuple[int, ...]
    sweep_batches: tuple[int, ...]
    rounds: int
    video: Workload
    many: Workload
    sessions: tuple[int, ...]
    live_seconds: float

    def loads(self, memory: Memory) -> list[Load]:
        """Return the loads of one way to send tensors."""
        return [Load(self.callers, batch, memory, self.seconds, self.warm_up) for batch in self.batches]

    def sweep_loads(self, memory: Memory) -> list[Load]:
        """Return the loads of the sweep."""
        return [
            Load(callers, batch, memory, self.seconds, self.warm_up)
            for batch in self.sweep_batches
            for callers in self.sweep
        ]


def _without_networks(workload: Workload) -> Workload:
    """Return the workload without the goal that needs the time of the bare networks, which other steps measure."""
    return replace(workload, goals=replace(workload.goals, cached_ratio=None))


FULL = Scale(
    seconds=4.0,
    warm_up=1.5,
    batches=(64, 128, 256),
    callers=8,
    sweep=(1, 2, 4, 8, 12, 16, 32),
    sweep_batches=(16, 64, 256),
    rounds=3,
    video=_without_networks(WORKLOADS["video-720p-fp16"]),
    many=_without_networks(WORKLOADS["8-video-720p-fp16"]),
    sessions=(1, LIVE_GOAL_SESSIONS, 40),
    live_seconds=10.0,
)
QUICK = Scale(
    seconds=0.4,
    warm_up=0.1,
    batches=(1, 2),
    callers=2,
    sweep=(1, 3),
    sweep_batches=(1,),
    rounds=1,
    video=Workload(Kind.VIDEO, 192, 144, 0.6, Precision.FP32, Goals(speedup=10)),
    many=Workload(Kind.VIDEO, 192, 144, 0.6, Precision.FP32, Goals(encoder_ratio=0.8), forms=2),
    sessions=(1, 2),
    live_seconds=1.0,
)


@dataclass(frozen=True)
class Settings:
    """The options of a run.

    Attributes:
        device: `cuda` or `cpu`, of the networks and of the original algorithm.
        scale: how much is measured.
        url: gRPC address of a server that runs elsewhere; empty: servers are started here.
        metrics: address of that server's metrics, or empty.
        repository: exported models to serve, instead of those that are exported here.
        work: folder for models, media and logs.
        token: of the server at `url`.
    """

    device: str
    scale: Scale
    url: str
    metrics: str
    repository: Path | None
    work: Path
    token: Token

    @classmethod
    def of(cls, args: argparse.Namespace) -> Settings:
        """Return the settings of a command line."""
        scale, repository = (QUICK if args.quick else FULL), args.repository
        token = Token.from_environment()
        return cls(args.device, scale, args.url or "", args.metrics or "", repository, args.work.resolve(), token)

    @property
    def formats(self) -> tuple[str, ...]:
        """What is served, the most important first: formats that are exported here, or `GIVEN`."""
        if self.url or self.repository:
            return (GIVEN,)
        return (Format.TORCHSCRIPT.value, Format.ONNX.value)

    @property
    def weights(self) -> Path:
        """Folder of the checkpoints that are generated here."""
        return self.work / "weights"

    @property
    def profile(self) -> Profile:
        """The kind of machine that exports are for."""
        return Profile.GPU if self.device == "cuda" else Profile.CPU

    def repository_of(self, kind: str) -> Path:
        """Return the folder of the exported models of a format."""
        return self.repository if kind == GIVEN and self.repository else self.work / f"repository-{self.device}-{kind}"

    def variant_of(self, kind: str) -> Variant:
        """Return what is exported of a format: fp16 for a GPU, fp32 for a CPU."""
        return Variant(Format(kind), Precision.FP16 if self.device == "cuda" else Precision.FP32)
