"""The package's log records as lines of Triton's own log."""

from __future__ import annotations

import logging

from lipsync.tensors import Model
from lipsync.triton.pb_utils import PbUtils

from ..tracing import request_id, trace_id

logger = logging.getLogger("avatar")


class TritonLog(logging.Handler):
    """Writes log records to the server's log."""

    def __init__(self, pb_utils: PbUtils, model: Model) -> None:
        super().__init__()
        self._log, self._model = pb_utils.Logger, model

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line, also where its message quotes text with line breaks."""
        ids = " ".join(filter(None, (getattr(record, "request_id", request_id.get()), trace_id())))
        text = f"{self._model.name} [{ids}] {self.format(record)}"
        text = " | ".join(filter(None, map(str.strip, text.splitlines())))
        if record.levelno >= logging.ERROR:
            self._log.log_error(text)
        elif record.levelno >= logging.WARNING:
            self._log.log_warn(text)
        else:
            self._log.log_info(text)


def log_to_triton(pb_utils: PbUtils, model: Model) -> None:
    """Send the package's log records to the server's log. A stub process has only one model."""
    logger.handlers[:] = [TritonLog(pb_utils, model)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
