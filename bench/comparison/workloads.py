"""What is measured: named works, and what each has to reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from export.variants import Precision


class Kind(StrEnum):
    """What the face is."""

    STILL = "still"
    VIDEO = "video"


FPS = 25  # frames a second of every work
AGAIN = 1.15  # the same avatar again ÷ (bare generator + encoder alone), at most
TOGETHER = 0.9  # all forms at once ÷ one after another, at most
FAIR = 2.0  # the longest wait ÷ the mean wait of the forms that are there at once, at most
BESIDE_ENCODER = 0.8  # frames a second of all forms ÷ those of x264 alone on all cores, at least


@dataclass(frozen=True)
class Goals:
    """What a work has to reach; None where nobody asked.

    Attributes:
        first: the original's time ÷ this service's, the avatar not seen before, at least.
        real_time: the result is there sooner than it plays.
        again: see `AGAIN`.
        together, fair: see `TOGETHER`, `FAIR`.
        beside_encoder: see `BESIDE_ENCODER`.
    """

    first: float | None = None
    real_time: bool = False
    again: float | None = None
    together: float | None = None
    fair: float | None = None
    beside_encoder: float | None = None


@dataclass(frozen=True)
class Work:
    """One thing to do, and to be timed doing.

    Attributes:
        kind, width, height: of the face.
        seconds: of the speech, and of the video.
        precision: of this service's nets.
        forms: how many at once; over 1, these are held against as many one after another.
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
        """As it is chosen by: `video-720p-int8`, `8-still-480p-fp32`."""
        many = f"{self.forms}-" if self.forms > 1 else ""
        return f"{many}{self.kind}-{self.height}p-{self.precision}"

    @property
    def about(self) -> str:
        """In words."""
        many = f"{self.forms} forms at once, each a " if self.forms > 1 else ""
        return f"{many}{self.kind} {self.width}×{self.height}, {self.seconds:g} s"

    @property
    def megapixels(self) -> float:
        """Of one picture."""
        return self.width * self.height / 1e6


SIZES = {360: 640, 480: 640, 720: 1280, 1080: 1920}  # height to width
STILL_SECONDS, VIDEO_SECONDS, SHORT_SECONDS = 7.0, 10.0, 3.0
# Those that somebody set a goal for are as long as the goal says, the others short.
_GOALS = {
    (Kind.STILL, 480, Precision.FP32): (STILL_SECONDS, Goals(first=3, again=AGAIN)),
    (Kind.STILL, 480, Precision.INT8): (STILL_SECONDS, Goals(first=8, real_time=True, again=AGAIN)),
    (Kind.VIDEO, 480, Precision.FP32): (VIDEO_SECONDS, Goals(first=20, again=AGAIN)),
    (Kind.VIDEO, 480, Precision.INT8): (VIDEO_SECONDS, Goals(first=50, again=AGAIN)),
    (Kind.VIDEO, 720, Precision.FP32): (VIDEO_SECONDS, Goals(first=30, again=AGAIN)),
    (Kind.VIDEO, 720, Precision.INT8): (VIDEO_SECONDS, Goals(first=80, again=AGAIN)),
    (Kind.VIDEO, 720, Precision.FP16): (VIDEO_SECONDS, Goals(first=10, again=AGAIN)),
}
_MANY = Goals(together=TOGETHER, fair=FAIR)


def _every() -> list[Work]:
    works = []
    for precision in (Precision.FP32, Precision.INT8, Precision.FP16):
        for kind in Kind:
            for height, width in SIZES.items():
                seconds, goals = _GOALS.get((kind, height, precision), (SHORT_SECONDS, Goals()))
                works.append(Work(kind, width, height, seconds, precision, goals))
        works.append(Work(Kind.STILL, 640, 480, STILL_SECONDS, precision, _MANY, forms=8))
        encoder = Goals(together=TOGETHER, fair=FAIR, beside_encoder=BESIDE_ENCODER)
        goals = encoder if precision is Precision.FP16 else _MANY
        works.append(Work(Kind.VIDEO, 1280, 720, VIDEO_SECONDS, precision, goals, forms=8))
    return works


WORKS = {work.name: work for work in _every()}
QUICK = ("still-480p", "video-360p")  # both ways through the service, in a minute or two
USUAL = {
    Precision.FP32: ("still-480p", "video-480p", "video-720p"),
    Precision.INT8: (
        *("still-360p", "still-480p", "still-720p", "still-1080p"),
        *("video-360p", "video-480p", "video-720p", "video-1080p", "8-still-480p"),
    ),
    Precision.FP16: ("still-480p", "still-720p", "video-480p", "video-720p", "video-1080p", "8-video-720p"),
}


def usual(precisions: tuple[Precision, ...], *, quick: bool = False) -> list[Work]:
    """What is measured where nothing is named: the works with a goal, and each size once; of `quick` ones few."""
    return [
        WORKS[f"{short}-{precision}"] for precision in precisions for short in (QUICK if quick else USUAL[precision])
    ]


def named(names: list[str], precisions: tuple[Precision, ...]) -> list[Work]:
    """The works of these names; a name without its precision stands for every one of `precisions`.

    Raises:
        ValueError: there is none of that name, or it is of a precision that is not measured.
    """
    found: dict[str, Work] = {}
    for name in names:
        full = [name] if name in WORKS else [f"{name}-{precision}" for precision in precisions]
        for each in full:
            if each not in WORKS:
                raise ValueError(f"no work is named {name!r}; --list shows them")
            if WORKS[each].precision not in precisions:
                raise ValueError(f"{each}: only {', '.join(precisions)} is measured here; see --precision, --profile")
            found[each] = WORKS[each]
    return list(found.values())
