"""What every stage of one job has at hand."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from .flow import Clock
from .models import Models


class RequestLog(logging.LoggerAdapter[logging.Logger]):
    """The logger "avatar", each record with the request that it is about as its `request_id`."""

    def __init__(self, request_id: str) -> None:
        super().__init__(logging.getLogger("avatar"), {"request_id": request_id})


@dataclass(frozen=True)
class Job:
    """The models, the clock and the log of one request."""

    models: Models
    log: RequestLog
    clock: Clock = field(default_factory=Clock)
