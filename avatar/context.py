"""What every stage of one job shares."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from .errors import AvatarError, ClientError
from .faults import machine_fault
from .inference.protocol import InferenceClient, ModelInfo
from .limits import LIMITS, Limits
from .media.ffmpeg import FfmpegError
from .options import DEFAULTS, Options
from .request import AvatarRequest
from .resources.cache import Cache
from .timing import StageTimer


class RequestLogger(logging.LoggerAdapter[logging.Logger]):
    """The logger "avatar"; each record carries the id of the request as `request_id`."""

    def __init__(self, request_id: str) -> None:
        super().__init__(logging.getLogger("avatar"), {"request_id": request_id})


@dataclass(frozen=True)
class JobContext:
    """The models, the log, the options, the limits, the timer and the cache of one job; `cache` is None without one.

    `model_info` says how the models are served: the sizes of the job's calls follow from it.
    """

    models: InferenceClient
    log: RequestLogger
    options: Options = DEFAULTS
    limits: Limits = LIMITS
    timer: StageTimer = field(default_factory=StageTimer)
    cache: Cache | None = None
    model_info: ModelInfo = field(default_factory=ModelInfo)

    @classmethod
    def of(cls, request: AvatarRequest, models: InferenceClient, cache: Cache | None = None) -> JobContext:
        """Return the context of the job that `request` asks for."""
        return cls(models, RequestLogger(request.id), request.options, request.limits, cache=cache)

    def served_as(self, model_info: ModelInfo) -> JobContext:
        """Return the same job, with this information about the models, and calls of the versions that it names."""
        models = self.models.pinned(model_info.versions) if model_info.versions else self.models
        return replace(self, model_info=model_info, models=models)

    @contextmanager
    def failure_logged(self) -> Iterator[None]:
        """Do the job in this block: log the AvatarError that leaves it (see `log_failure`), and end the timer's spans.

        The machine's errors become MachineFaults.
        """
        try:
            yield
        except AvatarError as error:
            log_failure(error, self.log)
            raise
        except Exception as error:
            if fault := machine_fault(error):
                log_failure(fault, self.log)
                raise fault from error
            raise
        finally:
            self.timer.close()


def log_failure(error: AvatarError, log: RequestLogger) -> None:
    """Log an error with the causes that its message hides from the caller: ffmpeg's stderr, a server's message."""
    level = logging.INFO if isinstance(error, ClientError) else logging.ERROR
    log.log(level, "%s: %s", type(error).__name__, error)
    for cause in filter(None, (error, error.__cause__)):
        if isinstance(cause, FfmpegError):
            log.log(level, "ffmpeg ended with status %d: %s", cause.exit_status, cause.stderr_tail)
        elif cause is not error:
            log.log(level, "caused by %s: %s", type(cause).__name__, cause)
