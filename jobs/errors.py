"""Errors of the jobs, besides those of `avatar.errors`."""

from __future__ import annotations

from avatar.errors import ClientError, Unavailable


class JobNotFound(ClientError):
    """The caller has no job with this id."""

    status = 404
    code = "job_not_found"


class AvatarNotFound(ClientError):
    """The caller has kept no face with this id."""

    status = 404
    code = "avatar_not_found"


class AvatarInUse(ClientError):
    """A job that has not ended uses the kept face."""

    status = 409
    code = "avatar_in_use"


class IdempotencyConflict(ClientError):
    """The Idempotency-Key was used before, with other content."""

    status = 409
    code = "idempotency_conflict"


class NotFinished(ClientError):
    """The job has no result yet."""

    status = 409
    code = "not_finished"
    retry_after = 2  # seconds


class ResultGone(ClientError):
    """The job has no result any more, or never had one."""

    status = 410
    code = "result_gone"


class ResultNotSent(ClientError):
    """The receiver that the caller named for the result did not take it."""

    code = "result_url_failed"


class DatabaseUnavailable(Unavailable):
    """PostgreSQL does not answer."""

    code = "database_unavailable"


class LeaseLost(Exception):
    """The job was canceled, or another worker has it: what this worker did since does not count."""
