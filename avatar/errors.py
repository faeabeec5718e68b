"""The errors of a job, each with its HTTP status.

    AvatarError (500)
    ├── ClientError (400)        the input is invalid; the message may be shown to the caller
    │   ├── InvalidField         names the form field and the reason
    │   ├── TooLarge (413)       a file is over the limit
    │   └── FaceNotFound         the sentence of the original service
    └── Unavailable (503)        a dependency is down, not ready or too slow; the caller may retry
        ├── Busy                 the queue is full
        └── ShuttingDown         this process is being stopped

Any other exception is a defect of this service: the caller gets a plain 500, and the exception is logged.
"""

from fractions import Fraction
from typing import ClassVar


class AvatarError(Exception):
    """Base class of the errors of a job."""

    status: ClassVar[int] = 500


class ClientError(AvatarError):
    """The input is invalid."""

    status = 400


class InvalidField(ClientError):
    """One field of the request is invalid: `face_file: not an image that can be read`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class TooLarge(ClientError):
    """A file, or the whole form, is over the limit."""

    status = 413


class FaceNotFound(ClientError):
    """A frame that is used shows no face.

    Callers match the sentence of the original service, so it must not change.

    Attributes:
        seconds: time in the clip of the first frame without a face; None if it is not known.
    """

    def __init__(self, seconds: Fraction | None = None) -> None:
        super().__init__("Face not detected! Ensure the video contains a face in all the frames.")
        self.seconds = seconds


class Unavailable(AvatarError):
    """The models are unreachable, not ready, or too slow.

    Attributes:
        retry_after: seconds after which the caller may retry.
    """

    status = 503

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(Unavailable):
    """The limit of running and queued jobs is reached."""


class ShuttingDown(Unavailable):
    """The process is being stopped; another process, or this one after its restart, can do the job."""
