"""Why a URL of a caller is not followed, or fails. The texts are sentences for the caller, without a period."""

from __future__ import annotations


class RefusedUrl(Exception):
    """A URL that this service does not follow; the text says why."""


class RequestFailed(Exception):
    """The other server cannot be reached, answers with an error, or stops in the middle.

    Attributes:
        transient: whether the same request may succeed later.
    """

    def __init__(self, reason: str, transient: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient
