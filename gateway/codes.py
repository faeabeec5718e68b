"""The codes of errors, for programs: the whole list. `detail` is the sentence for a person, and may change.

Errors of `/v1`, and errors of jobs, have one. A new kind of error may get a new code; no code changes its meaning.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """What went wrong. The classes of the errors have these as `code`."""

    # 400
    INVALID_FIELD = "invalid_field"
    INVALID_INPUT = "invalid_input"
    MALFORMED_BODY = "malformed_body"
    FACE_NOT_FOUND = "face_not_found"
    RESULT_URL_FAILED = "result_url_failed"  # of a job
    # 401, 403
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN_PRIORITY = "forbidden_priority"
    FOREIGN_ORIGIN = "foreign_origin"  # of a live session
    # 404, 405
    JOB_NOT_FOUND = "job_not_found"
    AVATAR_NOT_FOUND = "avatar_not_found"
    SESSION_NOT_FOUND = "session_not_found"  # of a live session
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    # 408 to 416
    UPLOAD_TIMEOUT = "upload_timeout"
    IDLE_CALLER = "idle_caller"  # of a live session
    SLOW_CALLER = "slow_caller"  # of a live session
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    NOT_FINISHED = "not_finished"
    AVATAR_IN_USE = "avatar_in_use"
    RESULT_GONE = "result_gone"
    TOO_LARGE = "too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    UNSUPPORTED_TYPE = "unsupported_type"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    # 426, 429
    UPGRADE_REQUIRED = "upgrade_required"
    TOO_MANY_QUEUED = "too_many_queued"
    TOO_MANY_RUNNING = "too_many_running"
    TOO_MANY_UPLOADS = "too_many_uploads"
    TOO_MUCH_STORED = "too_much_stored"
    TOO_MANY_REQUESTS = "too_many_requests"
    # 500, 501, 503
    INTERNAL_ERROR = "internal_error"
    NO_DATABASE = "no_database"
    LIVE_DISABLED = "live_disabled"
    NO_WEBRTC = "no_webrtc"
    DATABASE_UNAVAILABLE = "database_unavailable"
    MACHINE_FAULT = "machine_fault"
    BUSY = "busy"
    SHUTTING_DOWN = "shutting_down"
    UNAVAILABLE = "unavailable"
    WORKER_LOST = "worker_lost"  # of a job


# Of limits of an API key (`jobs.quotas`), which the form has too.
KEY_LIMITS = frozenset(
    {ErrorCode.TOO_MANY_QUEUED, ErrorCode.TOO_MANY_RUNNING, ErrorCode.TOO_MANY_UPLOADS, ErrorCode.TOO_MUCH_STORED}
)
