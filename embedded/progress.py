"""How many requests each model has finished, from Triton's page of Prometheus metrics. Standard library only."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping

_SECONDS = 2.0  # limit for reading the page
_FRESH_SECONDS = 1.0  # for which a page is not read again
_FINISHED = re.compile(
    r'^nv_inference_request_(?:success|failure)\{.*?model="(?P<model>[^"]+)".*\} (?P<count>[\d.e+]+)', re.M
)


class Progress:
    """Reads the page at most once a second, from any thread."""

    def __init__(self, metrics_address: str) -> None:
        """Prepare to read the page at `metrics_address`, host:port."""
        self._address = metrics_address
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._counts: Mapping[str, int] | None = None

    def finished(self, model: str) -> int | None:
        """Return the number of requests that the model has finished, failed ones too; None where it is not known."""
        counts = self._fresh()
        return None if counts is None else counts.get(model)

    def readable(self) -> bool:
        """Return whether the page can be read."""
        return self._fresh() is not None

    def _fresh(self) -> Mapping[str, int] | None:
        with self._lock:
            if time.monotonic() - self._read_at > _FRESH_SECONDS:
                self._counts = self._read()
                self._read_at = time.monotonic()
            return self._counts

    def _read(self) -> Mapping[str, int] | None:
        page = read_page(self._address, _SECONDS)
        return None if page is None else parse(page)


def read_page(address: str, timeout: float) -> str | None:
    """Return the page at host:port, or None if it cannot be read within `timeout` seconds."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        page = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return page if response.status == http.client.OK else None


def parse(page: str) -> Mapping[str, int]:
    """Return the finished requests by model."""
    counts: Counter[str] = Counter()
    for found in _FINISHED.finditer(page):
        counts[found["model"]] += int(float(found["count"]))
    return counts
