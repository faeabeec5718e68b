"""Configure the logging of the gateway: as in every process that runs jobs, without the lines of its libraries."""

from __future__ import annotations

import logging
from typing import Literal

from jobs.logging_config import configure as configure_process


def configure(level: str, log_format: Literal["text", "json"]) -> None:
    """Log everything in this process to stderr; `python -m gateway` calls it once."""
    configure_process(level, log_format)
    if level != "debug":  # the gateway logs its own start and stop
        for name in ("uvicorn", "aioice", "aiortc"):
            logging.getLogger(name).setLevel(logging.WARNING)
