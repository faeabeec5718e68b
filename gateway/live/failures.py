"""How a live session tells its caller why it ended: the error message, and the code and the reason of the close."""

from __future__ import annotations

import logging

from avatar.errors import AvatarError, ClientError, InvalidField, MachineFault, ShuttingDown, Unavailable
from avatar.faults import machine_fault
from avatar.tracing import request_id

from ..codes import ErrorCode
from ..errors import INTERNAL_ERROR
from ..service import Service
from .messages import ErrorMessage

logger = logging.getLogger(__name__)

MAX_REASON = 120  # bytes of a close's reason; WebSockets allow 123
POLICY_VIOLATION, DEFECT, RESTART, TRY_LATER = 1008, 1011, 1012, 1013
STATUS_OF_DEFECT = 500


class IdleCaller(ClientError):
    """The caller has sent nothing for too long."""

    status = 408
    code = ErrorCode.IDLE_CALLER


def describe(error: Exception, service: Service) -> ErrorMessage:
    """Return the message for an error, and log it."""
    known = _known(error)
    identity = request_id.get()
    if known is None or known.status == STATUS_OF_DEFECT:
        logger.error("internal error in a live session", exc_info=error)
        return ErrorMessage(
            status=STATUS_OF_DEFECT, code=ErrorCode.INTERNAL_ERROR, detail="internal error", request_id=identity
        )
    if isinstance(known, MachineFault):
        service.machine.record(known)
    level = logging.INFO if isinstance(known, ClientError | ShuttingDown) else logging.WARNING
    logger.log(level, "live session ended with %d: %s", known.status, known)
    return ErrorMessage(
        status=known.status,
        code=known.code,
        detail=str(known),
        field=known.field if isinstance(known, InvalidField) else None,
        request_id=identity,
        retry_after=known.retry_after if isinstance(known, Unavailable) else None,
    )


def kind_of(error: Exception) -> str:
    """Return the label of an error in the metrics."""
    known = _known(error)
    return INTERNAL_ERROR if known is None else type(known).__name__


def close_code(error: Exception) -> int:
    """Return the code of the close that follows an error."""
    known = _known(error)
    if isinstance(known, ShuttingDown):
        return RESTART
    if isinstance(known, Unavailable):
        return TRY_LATER
    return POLICY_VIOLATION if isinstance(known, ClientError) else DEFECT


def _known(error: Exception) -> AvatarError | None:
    """Return an error that a caller may know of, or None for a defect."""
    return error if isinstance(error, AvatarError) else machine_fault(error)


def close_reason(message: ErrorMessage) -> str:
    """Return the reason of the close, cut to what fits."""
    return message.detail.encode()[:MAX_REASON].decode(errors="ignore")
