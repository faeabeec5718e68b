"""The errors of a job, each with its HTTP status.

    AvatarError (500)
    ├── ClientError (400)        the input is invalid; the message may be shown to the caller
    │   ├── InvalidField         names the form field and the reason
    │   ├── TooLarge (413)       a file is over the limit
    │   └── FaceNotFound         the sentence of the original service
    └── Unavailable (503)        a dependency is down, not ready or too slow; the caller may retry
        ├── Busy                 the queue is full
        ├── ShuttingDown         this process is being stopped
        ├── ModelLost            the process of a Triton model died or is stopped
        └── MachineFault         the machine of the service fails; the input may be valid
            ├── FfmpegFault      ffmpeg is missing, was killed, hangs, or fails on every file
            ├── StorageFault     the disk or the work folder: full, read-only, removed
            ├── ResourceFault    no file descriptors, memory or threads left
            └── MarkFault        a result cannot be marked as the settings require

A 4xx means that the same input would fail again. Any other exception is a defect of this service: the caller gets a
plain 500, and the exception is logged. Each class also has the code by which programs tell it from others
(`gateway.codes` has all of them).
"""

from fractions import Fraction
from typing import ClassVar


class AvatarError(Exception):
    """Base class of the errors of a job."""

    status: ClassVar[int] = 500
    code: str = "internal_error"


class ClientError(AvatarError):
    """The input is invalid."""

    status = 400
    code = "invalid_input"


class InvalidField(ClientError):
    """One field of the request is invalid: `face_file: not an image that can be read`."""

    code = "invalid_field"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class TooLarge(ClientError):
    """A file, or the whole form, is over the limit."""

    status = 413
    code = "too_large"


class FaceNotFound(ClientError):
    """A frame that is used shows no face.

    Callers match the sentence of the original service, so it must not change.

    Attributes:
        seconds: time in the clip of the first frame without a face; None if it is not known.
    """

    code = "face_not_found"

    def __init__(self, seconds: Fraction | None = None) -> None:
        super().__init__("Face not detected! Ensure the video contains a face in all the frames.")
        self.seconds = seconds


class Unavailable(AvatarError):
    """The models are unreachable, not ready, or too slow.

    Attributes:
        retry_after: seconds after which the caller may retry.
    """

    status = 503
    code = "unavailable"

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(Unavailable):
    """The limit of running and queued jobs is reached."""

    code = "busy"


class ShuttingDown(Unavailable):
    """The process is being stopped; another process, or this one after its restart, can do the job."""

    code = "shutting_down"

    def __init__(self, message: str = "the service is being stopped") -> None:
        super().__init__(message)


class ModelLost(Unavailable):
    """The process of a Python model of Triton died or is stopped; the watcher of the server replaces it."""


class MachineFault(Unavailable):
    """The machine of the service fails, whatever the input is. The message names no path of the machine."""

    code = "machine_fault"

    def __init__(self, reason: str, retry_after: int = 10) -> None:
        super().__init__(f"the service has a fault: {reason}; try again later", retry_after)
        self.reason = reason


class FfmpegFault(MachineFault):
    """ffmpeg is missing, was killed, makes no progress, or fails on every file."""


class StorageFault(MachineFault):
    """The disk or the work folder fails: it is full, read-only, broken or removed."""


class ResourceFault(MachineFault):
    """The machine or this process has no file descriptors, memory or threads left."""


class MarkFault(MachineFault):
    """A result cannot be marked as synthetic in the way that the settings require."""
