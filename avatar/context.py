"""What every stage of one job has at hand."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .inference.protocol import Models
from .limits import LIMITS, Limits
from .options import DEFAULTS, Options
from .resources.cache import Cache
from .streams import Clock

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:  # which takes no parameter in Python 3.10
    _Adapter = logging.LoggerAdapter


class RequestLog(_Adapter):
    """The logger "avatar", each record with the request that it is about as its `request_id`."""

    def __init__(self, request_id: str) -> None:
        super().__init__(logging.getLogger("avatar"), {"request_id": request_id})


@dataclass(frozen=True)
class Job:
    """The models, the log, the options, the limits and the clock of one request; what is remembered, if anything is."""

    models: Models
    log: RequestLog
    options: Options = DEFAULTS
    limits: Limits = LIMITS
    clock: Clock = field(default_factory=Clock)
    cache: Cache | None = None
