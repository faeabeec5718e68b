"""What a Prometheus metric is: one row of the documentation, from which the metric is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


@dataclass(frozen=True)
class Metric:
    """One row of the documentation: name as in Prometheus, kind, labels, help text."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    description: str

    def counter(self, registry: CollectorRegistry) -> Counter:
        """Return the counter, added to the registry."""
        return Counter(self.name, self.description, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """Return the gauge, added to the registry."""
        return Gauge(self.name, self.description, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry, buckets: Sequence[float]) -> Histogram:
        """Return the histogram, added to the registry."""
        return Histogram(self.name, self.description, self.labels, registry=registry, buckets=buckets)
