"""What every stage of one job has at hand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from .flow import Clock
from .models import Models


class RequestLog(logging.LoggerAdapter[logging.Logger]):
    """The logger "avatar", each line beginning with the request that it is about."""

    def __init__(self, request_id: str) -> None:
        super().__init__(logging.getLogger("avatar"), {"request": request_id})

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        """Put the request in front of the message."""
        extra: Mapping[str, object] = self.extra or {}
        return f"request {extra['request']}: {msg}", kwargs


@dataclass(frozen=True)
class Job:
    """The models, the clock and the log of one request."""

    models: Models
    log: RequestLog
    clock: Clock = field(default_factory=Clock)
