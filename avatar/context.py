"""What every stage of one job has at hand."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .inference.protocol import InferenceClient
from .limits import LIMITS, Limits
from .options import DEFAULTS, Options
from .resources.cache import Cache
from .timing import StageTimer

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:  # which takes no parameter in Python 3.10
    _Adapter = logging.LoggerAdapter


class RequestLogger(_Adapter):
    """The logger "avatar", each record with the request that it is about as its `request_id`."""

    def __init__(self, request_id: str) -> None:
        super().__init__(logging.getLogger("avatar"), {"request_id": request_id})


@dataclass(frozen=True)
class JobContext:
    """The models, the log, the options, the limits and the clock of one request; what is remembered, if anything is."""

    models: InferenceClient
    log: RequestLogger
    options: Options = DEFAULTS
    limits: Limits = LIMITS
    timer: StageTimer = field(default_factory=StageTimer)
    cache: Cache | None = None
