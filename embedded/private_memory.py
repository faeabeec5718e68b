"""Start a program whose shared memory no other user can read: `python private_memory.py PROGRAM ARGUMENT…`.

The frames of every call pass through files of /dev/shm that the Python backend makes with Boost. Boost gives them the
mode 0644 by fchmod, whatever the umask is. So the program gets a umask of 077, and a seccomp filter that answers an
fchmod to 0644 with "done" and does nothing. Every other call works as before.

Only the standard library is imported: the script runs isolated, and Triton's container uses it too.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_FCHMOD, _SECCOMP, _X86_64 = 91, 317, 0xC000003E  # numbers of two system calls on this architecture
_BOOST_MODE = 0o644
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER = 38, 1
# Without it, kernels before 5.16 slow a filtered process down, as if it had to be kept from reading its own memory.
_SPECULATION_ALLOWED = 4
_ALLOW, _DONE = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with the error 0
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # of the kernel's packet filter language
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24  # offsets in struct seccomp_data
# (operation, jump if true, jump if false, value); a jump counts the instructions that it leaves out
_PROGRAM = (
    (_LOAD, 0, 0, _ARCHITECTURE),
    (_JUMP_IF_EQUAL, 0, 5, _X86_64),
    (_LOAD, 0, 0, _NUMBER),
    (_JUMP_IF_EQUAL, 0, 3, _FCHMOD),
    (_LOAD, 0, 0, _SECOND_ARGUMENT),
    (_JUMP_IF_EQUAL, 0, 1, _BOOST_MODE),
    (_RETURN, 0, 0, _DONE),
    (_RETURN, 0, 0, _ALLOW),
)


class _Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def keep_private() -> None:
    """Make the shared memory of this process, and of all that it starts, private to its user. It cannot be undone.

    Raises:
        OSError: the kernel does not filter system calls.
    """
    os.umask(0o077)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _PROGRAM)
    libc = ctypes.CDLL(None, use_errno=True)
    program = ctypes.byref(_Filter(len(_PROGRAM), code))
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))))
    numbers = map(ctypes.c_long, (_SECCOMP, _SET_MODE_FILTER, _SPECULATION_ALLOWED))
    _check(libc.syscall(*numbers, program))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main() -> None:
    """Become the program that the arguments name."""
    try:
        keep_private()
    except OSError as error:
        print(f"other users of this machine can read the frames in /dev/shm: {error}", file=sys.stderr, flush=True)
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - the program is given by the caller


if __name__ == "__main__":
    main()
