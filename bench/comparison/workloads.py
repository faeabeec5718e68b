"""The workloads that can be measured, and the goals of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from export.variants import Precision


class Kind(StrEnum):
    """Whether the face is an image or a video."""

    STILL = "still"
    VIDEO = "video"


FPS = 25  # frames per second of every workload
MAX_CACHED_RATIO = 1.15  # cached avatar ÷ (bare generator + encoder alone)
MAX_CONCURRENT_RATIO = 0.9  # concurrent ÷ sequential
MAX_UNFAIRNESS = 2.0  # longest ÷ mean response time of concurrent forms
MIN_ENCODER_RATIO = 0.8  # frames per second of concurrent forms ÷ those of x264 alone on all cores


@dataclass(frozen=True)
class Goals:
    """The goals of a workload; None: no goal.

    Attributes:
        speedup: minimum of the original's time ÷ the service's with a new avatar.
        real_time: the service must not take longer than the clip.
        cached_ratio: maximum, see `MAX_CACHED_RATIO`.
        concurrent_ratio, unfairness: maxima, see `MAX_CONCURRENT_RATIO`, `MAX_UNFAIRNESS`.
        encoder_ratio: minimum, see `MIN_ENCODER_RATIO`.
    """

    speedup: float | None = None
    real_time: bool = False
    cached_ratio: float | None = None
    concurrent_ratio: float | None = None
    unfairness: float | None = None
    encoder_ratio: float | None = None


@dataclass(frozen=True)
class Workload:
    """One job to measure.

    Attributes:
        kind, width, height: of the face.
        seconds: duration of the speech, and of the video.
        precision: of the service's networks.
        forms: number of concurrent forms; if more than 1, they are compared with as many sequential ones.
    """

    kind: Kind
    width: int
    height: int
    seconds: float
    precision: Precision
    goals: Goals = Goals()
    forms: int = 1

    @property
    def name(self) -> str:
        """Name for `--workloads`: `video-720p-int8`, `8-still-480p-fp32`."""
        many = f"{self.forms}-" if self.forms > 1 else ""
        return f"{many}{self.kind}-{self.height}p-{self.precision}"

    @property
    def description(self) -> str:
        """Description for the tables."""
        many = f"{self.forms} concurrent forms, each a " if self.forms > 1 else ""
        return f"{many}{self.kind} {self.width}×{self.height}, {self.seconds:g} s"

    @property
    def megapixels(self) -> float:
        """Megapixels of one frame."""
        return self.width * self.height / 1e6


SIZES = {360: 640, 480: 640, 720: 1280, 1080: 1920}  # height to width
STILL_SECONDS, VIDEO_SECONDS, SHORT_SECONDS = 7.0, 10.0, 3.0
# Workloads with a goal have the duration of the goal, all others are short.
_GOALS = {
    (Kind.STILL, 480, Precision.FP32): (STILL_SECONDS, Goals(speedup=3, cached_ratio=MAX_CACHED_RATIO)),
    (Kind.STILL, 480, Precision.INT8): (STILL_SECONDS, Goals(speedup=8, real_time=True, cached_ratio=MAX_CACHED_RATIO)),
    (Kind.VIDEO, 480, Precision.FP32): (VIDEO_SECONDS, Goals(speedup=20, cached_ratio=MAX_CACHED_RATIO)),
    (Kind.VIDEO, 480, Precision.INT8): (VIDEO_SECONDS, Goals(speedup=50, cached_ratio=MAX_CACHED_RATIO)),
    (Kind.VIDEO, 720, Precision.FP32): (VIDEO_SECONDS, Goals(speedup=30, cached_ratio=MAX_CACHED_RATIO)),
    (Kind.VIDEO, 720, Precision.INT8): (VIDEO_SECONDS, Goals(speedup=80, cached_ratio=MAX_CACHED_RATIO)),
    (Kind.VIDEO, 720, Precision.FP16): (VIDEO_SECONDS, Goals(speedup=10, cached_ratio=MAX_CACHED_RATIO)),
}
_MANY = Goals(concurrent_ratio=MAX_CONCURRENT_RATIO, unfairness=MAX_UNFAIRNESS)


def _all() -> list[Workload]:
    found = []
    for precision in (Precision.FP32, Precision.INT8, Precision.FP16):
        for kind in Kind:
            for height, width in SIZES.items():
                seconds, goals = _GOALS.get((kind, height, precision), (SHORT_SECONDS, Goals()))
                found.append(Workload(kind, width, height, seconds, precision, goals))
        found.append(Workload(Kind.STILL, 640, 480, STILL_SECONDS, precision, _MANY, forms=8))
        encoder = Goals(
            concurrent_ratio=MAX_CONCURRENT_RATIO, unfairness=MAX_UNFAIRNESS, encoder_ratio=MIN_ENCODER_RATIO
        )
        goals = encoder if precision is Precision.FP16 else _MANY
        found.append(Workload(Kind.VIDEO, 1280, 720, VIDEO_SECONDS, precision, goals, forms=8))
    return found


WORKLOADS = {work.name: work for work in _all()}
QUICK = ("still-480p", "video-360p")  # an image and a video, in a minute or two
DEFAULT = {
    Precision.FP32: ("still-480p", "video-480p", "video-720p"),
    Precision.INT8: (
        *("still-360p", "still-480p", "still-720p", "still-1080p"),
        *("video-360p", "video-480p", "video-720p", "video-1080p", "8-still-480p"),
    ),
    Precision.FP16: ("still-480p", "still-720p", "video-480p", "video-720p", "video-1080p", "8-video-720p"),
}


def default_workloads(precisions: tuple[Precision, ...], *, quick: bool = False) -> list[Workload]:
    """Return the workloads of a run without `--workloads`: all with a goal, and each size once; a few if `quick`."""
    return [
        WORKLOADS[f"{short}-{precision}"]
        for precision in precisions
        for short in (QUICK if quick else DEFAULT[precision])
    ]


def by_name(names: list[str], precisions: tuple[Precision, ...]) -> list[Workload]:
    """Return the workloads of these names; a name without a precision selects each of `precisions`.

    Raises:
        ValueError: a name is unknown, or its precision is not one of `precisions`.
    """
    found: dict[str, Workload] = {}
    for name in names:
        full = [name] if name in WORKLOADS else [f"{name}-{precision}" for precision in precisions]
        for each in full:
            if each not in WORKLOADS:
                raise ValueError(f"no workload is named {name!r}; --list shows the names")
            if WORKLOADS[each].precision not in precisions:
                raise ValueError(f"{each}: only {', '.join(precisions)} can be measured; see --precision and --profile")
            found[each] = WORKLOADS[each]
    return list(found.values())
