"""What can go wrong in the job, each with the HTTP status that it deserves.

    AvatarError
    ├── ClientError (400)        the caller's input; the message may be shown to the caller
    │   ├── InvalidField         names the form field and the reason
    │   ├── TooLarge (413)       a file is over the limit
    │   └── FaceNotFound         the original's sentence
    └── Unavailable (503)        a dependency is down, not ready or too slow; worth trying again
        ├── Busy                 as many jobs run and wait as may
        └── ShuttingDown         this process is being stopped

Anything else that is raised is a defect of ours: the faces answer it with a plain 500 and log it.
"""

from fractions import Fraction
from typing import ClassVar


class AvatarError(Exception):
    """Base of the job's errors."""

    status: ClassVar[int] = 500


class ClientError(AvatarError):
    """The input cannot be worked on."""

    status = 400


class InvalidField(ClientError):
    """One field of the request does not do: `face_file: not a picture`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class TooLarge(ClientError):
    """A file, or the form as a whole, is over the limit."""

    status = 413


class FaceNotFound(ClientError):
    """A picture that is used shows no face. Callers match the sentence: it is the original's."""

    def __init__(self, seconds: Fraction | None = None) -> None:
        super().__init__("Face not detected! Ensure the video contains a face in all the frames.")
        self.seconds = seconds  # from the clip's begin to the first frame without one; None where nobody looked


class Unavailable(AvatarError):
    """The models cannot be reached, are not ready, or did not answer in time."""

    status = 503

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds


class Busy(Unavailable):
    """As many jobs run and wait as may."""


class ShuttingDown(Unavailable):
    """The process is being stopped; another one, or this one after its restart, may help."""
