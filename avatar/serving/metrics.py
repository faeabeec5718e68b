"""Metrics of the streaming models, on Triton's own metrics port. They hold counts and durations, nothing of callers.

Each operation on a metric is a message to the server and back. So the models only add up here, and a thread of its own
hands the sums over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lipsync.tensors import AVATAR, LIVE, Model
from lipsync.triton.pb_utils import MetricFamily, PbUtils, TritonMetric

from ..errors import Busy, ClientError, MachineFault, ShuttingDown, Unavailable
from .live_errors import SequenceInUse, WrongToken
from .request import NotRead

logger = logging.getLogger("avatar")

FLUSH_SECONDS = 1.0
CLOSE_SECONDS = 2.0  # for the last sums to be handed over when the model is unloaded
MAX_OBSERVATIONS = 10_000  # that wait for the thread
# As `avatar_worker_job_seconds` of the workers.
SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)


@dataclass(frozen=True)
class ModelMetric:
    """One row of the documentation: name, kind, labels with their values where these are known, models, help text.

    Every series has the label `process` too: two processes of a model, while one replaces the other, share none.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    models: tuple[Model, ...]
    description: str
    values: tuple[str, ...] = ()


OUTCOMES = ("succeeded", "rejected", "unavailable", "failed", "canceled")
_REASONS: Mapping[type[Exception], str] = {  # a class comes before those that it is derived from
    Busy: "busy",
    NotRead: "not_read",
    ShuttingDown: "stopping",
    MachineFault: "machine",
    Unavailable: "models",
    WrongToken: "session",
    SequenceInUse: "session",
    ClientError: "invalid",
}

JOBS = ModelMetric(
    "avatar_model_jobs_total",
    "counter",
    ("outcome",),
    (AVATAR,),
    "Requests of the model `avatar`, by how they ended: `succeeded`, `rejected` (the caller's mistake), `unavailable` "
    "(503), `failed` (500), `canceled`.",
    OUTCOMES,
)
STAGE_SECONDS = ModelMetric(
    "avatar_model_stage_seconds",
    "histogram",
    ("stage",),
    (AVATAR,),
    "Seconds of each stage of a finished job of the model `avatar`.",
)
SESSIONS = ModelMetric("avatar_live_sessions", "gauge", (), (LIVE,), "Live sessions that run.")
FRAMES = ModelMetric("avatar_live_frames_total", "counter", (), (LIVE,), "Frames of live sessions.")
LATE_FRAMES = ModelMetric(
    "avatar_live_late_frames_total",
    "counter",
    (),
    (LIVE,),
    "Frames of live sessions that were sent more than 0.1 s later than a player would show them.",
)
REFUSALS = ModelMetric(
    "avatar_model_refusals_total",
    "counter",
    ("model", "reason"),
    (AVATAR, LIVE),
    "Requests that were refused; `reason` is `busy` (places, sessions or memory), `invalid` (the caller's mistake), "
    "`session` (token or sequence of another session), `not_read`, `models`, `machine` or `stopping`.",
    tuple(dict.fromkeys(_REASONS.values())),
)
MODEL_METRICS = (JOBS, STAGE_SECONDS, SESSIONS, FRAMES, LATE_FRAMES, REFUSALS)

_Series = tuple[ModelMetric, str]


class ModelMetrics:
    """The metrics of one model's process. Every method returns at once, whatever the server does."""

    def __init__(self, pb_utils: PbUtils, model: Model) -> None:
        """Make the series whose labels are known, at 0: a rate needs the first sample to be 0."""
        self._pb, self._model = pb_utils, model
        self._families = {each: self._family(each) for each in MODEL_METRICS if model in each.models}
        self._series: dict[_Series, TritonMetric] = {}
        self._sums: dict[_Series, float] = {}
        self._values: dict[_Series, float] = {}
        self._observed: list[tuple[_Series, float]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        for metric in self._families:
            if metric.kind != "histogram":
                for value in metric.values or ("",):
                    self._metric((metric, value))
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def count(self, metric: ModelMetric, label: str = "", number: int = 1) -> None:
        """Add to a counter; `label` is the value of its own label, if it has one."""
        with self._lock:
            self._sums[metric, label] = self._sums.get((metric, label), 0) + number

    def set(self, metric: ModelMetric, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[metric, ""] = value

    def observe(self, metric: ModelMetric, label: str, value: float) -> None:
        """Add a value to a histogram."""
        with self._lock:
            if len(self._observed) < MAX_OBSERVATIONS:
                self._observed.append(((metric, label), value))

    def count_end(self, error: BaseException | None) -> None:
        """Count a request that has ended, with this error if any."""
        if JOBS in self._families:
            self.count(JOBS, outcome_of(error))
        if reason := reason_of(error):
            self.count(REFUSALS, reason)

    def close(self) -> None:
        """Hand over what is left, and remove the series of this process from the server: another one replaces them."""
        for metric in self._families:
            if metric.kind == "gauge":
                self.set(metric, 0)
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._series.clear()  # before the families, as Triton requires it
            self._families.clear()

    def _run(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            if not self._flush():
                return
        self._flush()

    def _flush(self) -> bool:
        """Hand over the sums; return whether the server takes them. Without metrics the model works as before."""
        with self._lock:
            sums, self._sums = self._sums, {}
            values, self._values = self._values, {}
            observed, self._observed = self._observed, []
        try:
            for series, number in sums.items():
                self._metric(series).increment(number)
            for series, value in values.items():
                self._metric(series).set(value)
            for series, value in observed:
                self._metric(series).observe(value)
        except Exception as error:
            if not self._closing.is_set():
                logger.warning("the metrics of this model end here: %s", error)
            return False
        return True

    def _family(self, metric: ModelMetric) -> MetricFamily:
        families = self._pb.MetricFamily
        kind = {"counter": families.COUNTER, "gauge": families.GAUGE, "histogram": families.HISTOGRAM}[metric.kind]
        return families(name=metric.name, description=metric.description, kind=kind)

    def _metric(self, series: _Series) -> TritonMetric:
        if series not in self._series:
            metric, value = series
            labels = {name: value for name in metric.labels if name != "model"}
            labels |= {"model": self._model.name} if "model" in metric.labels else {}
            labels["process"] = str(os.getpid())
            family = self._families[metric]
            made = family.Metric(labels=labels, buckets=list(SECONDS)) if metric.kind == "histogram" else None
            self._series[series] = made or family.Metric(labels=labels)
        return self._series[series]


def outcome_of(error: BaseException | None) -> str:
    """Return how a job ended, as a label."""
    if error is None:
        return "succeeded"
    if isinstance(error, asyncio.CancelledError):
        return "canceled"
    if isinstance(error, ClientError):
        return "rejected"
    return "unavailable" if isinstance(error, Unavailable) else "failed"


def reason_of(error: BaseException | None) -> str:
    """Return why a request was refused, as a label; empty where it was not."""
    return next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), "")
