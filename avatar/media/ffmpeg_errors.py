"""The errors of ffmpeg, and what its exit status says about their cause."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal

from ..errors import AvatarError, FfmpegFault, MachineFault, ResourceFault, StorageFault
from ..faults import machine_fault

MAX_FILE_BYTES = 32 << 30  # the limit of a file that ffmpeg writes; a result of one hour in 4K is smaller
# Signals by which a program ends itself; the content of a file can cause that.
CRASHES = {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}
SIGNALLED = 255  # ffmpeg's exit status after SIGINT, SIGTERM and SIGXCPU, which it handles; 6.1 and newer: EPERM too
EPERM_TEXT = "Operation not permitted"
# Errors of the machine that ffmpeg names at the end of a message. Text of the file (its metadata) is in indented lines.
_NAMED_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE)
_NAMED_ERROR = re.compile(
    "|".join(rf"^\S.*(?:: |\()({re.escape(os.strerror(number))})\)?$" for number in _NAMED_ERRORS), re.M
)
NOT_STARTED = (126, 127)  # exit statuses of the dynamic linker and of a shell that cannot start the program
SHELL_SIGNALS = (129, 130, 137, 143)  # exit statuses of a shell script whose program was ended by such a signal


class FfmpegError(AvatarError):
    """ffmpeg failed.

    Attributes:
        exit_status: the exit status; negative for the signal that ended the process.
        stderr_tail: the end of its stderr, for the log only: it contains paths of this machine.
    """

    def __init__(self, status: int, stderr_tail: str) -> None:
        super().__init__("ffmpeg could not process the media")
        self.exit_status = status
        self.stderr_tail = stderr_tail


class FfmpegTimeout(FfmpegError):
    """ffmpeg was busy until its deadline and was killed then."""

    def __init__(self, seconds: float, cpu_seconds: float) -> None:
        super().__init__(
            -signal.SIGKILL, f"killed after {seconds:g} s without a result, {cpu_seconds:.1f} s of processor time"
        )


def start_fault(error: OSError) -> MachineFault:
    """Return the fault that kept ffmpeg from starting."""
    if error.errno == errno.EAGAIN:
        return ResourceFault("no more processes can be started")
    fault = machine_fault(error)
    reason = os.strerror(error.errno) if error.errno else "unknown error"
    return fault if isinstance(fault, ResourceFault) else FfmpegFault(f"ffmpeg cannot be started ({reason})")


def named_fault(stderr_tail: str) -> MachineFault | None:
    """Return the fault of the machine that ffmpeg's messages name.

    ffmpeg 5.1 ends with status 0 if it cannot write the end of a file; 6.1 and newer show it in the status too.
    """
    found = _NAMED_ERROR.search(stderr_tail)
    if found is None or found.lastindex is None:
        return None
    number = _NAMED_ERRORS[found.lastindex - 1]
    return machine_fault(OSError(number, os.strerror(number), "written by ffmpeg"))


def failure(status: int, stderr_tail: str) -> AvatarError:
    """Return the error of a process that failed: a fault of the machine if it was ended from outside."""
    error = FfmpegError(status, stderr_tail)
    fault = _outside_fault(status, stderr_tail) or named_fault(stderr_tail)
    if fault is None:
        return error
    fault.__cause__ = error
    return fault


def _outside_fault(status: int, stderr_tail: str) -> MachineFault | None:
    if status == -signal.SIGXFSZ:
        return _file_size_fault()
    if status in NOT_STARTED:
        return FfmpegFault("ffmpeg cannot be started")
    if status == SIGNALLED and EPERM_TEXT in stderr_tail:
        return None
    is_signal = status < 0 and -status not in CRASHES
    if is_signal or status == SIGNALLED or status in SHELL_SIGNALS:
        return FfmpegFault("ffmpeg was killed")
    return None


def _file_size_fault() -> MachineFault | None:
    """Return the fault if this process has a lower limit than MAX_FILE_BYTES: then even a small file exceeds it."""
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if soft == resource.RLIM_INFINITY or soft >= MAX_FILE_BYTES:
        return None
    return StorageFault("a file reached the file size limit of the process")
