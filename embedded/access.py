"""Who may call which endpoint of Triton: a token for those that change the server or show the data of other callers.

Inference, health, metadata, configurations and statistics are open to every caller. Standard library only: Triton's
container uses this file too.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

TOKEN_VARIABLE = "AVATAR_TRITON_TOKEN"  # noqa: S105 - the name of the variable
KEY = "avatar-token"  # the HTTP header that holds the token
HEADER = f"triton-grpc-protocol-{KEY}"  # the same of gRPC; Triton adds the prefix
# With shared memory a caller reads the arrays of others; the others load models, write files, and switch logs off.
RESTRICTED = ("shared-memory", "model-repository", "trace", "logging")
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,256}")  # what needs no quoting in an argument, a header and an env file
_PROC = Path("/proc")


def make_token() -> str:
    """Return a random token."""
    return secrets.token_urlsafe(32)


def check_token(token: str) -> str:
    """Return the token.

    Raises:
        ValueError: it has other characters, or is too short; the message does not show it.
    """
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"{TOKEN_VARIABLE}: 16 to 256 letters, digits or . _ ~ - expected (the value is not shown)")
    return token


def restrictions(token: str, *, http: bool) -> list[str]:
    """Return the server's options that require the token, for gRPC and with `http` for HTTP too."""
    rule = f"{','.join(RESTRICTED)}:{KEY}={token}"
    return [f"--grpc-restricted-protocol={rule}", *([f"--http-restricted-api={rule}"] if http else [])]


def write_token(path: Path, token: str) -> None:
    """Write the token to a file that only this user can read, in place of what was there.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{token}\n")
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def remove_token(path: Path, token: str) -> None:
    """Remove the file, unless another server has written its own token there."""
    with suppress(OSError):
        if path.read_text("ascii").strip() == token:
            path.unlink()


def token_of(arguments: Iterable[str]) -> str:
    """Return the token in the server's arguments; empty where there is none."""
    return next((each.partition(f":{KEY}=")[2] for each in arguments if f":{KEY}=" in each), "")


def hide_argument(pid: int, secret: str) -> bool:
    """Overwrite a secret in the arguments of this process or a child, which every user can read in /proc.

    A child must have read its arguments already. Triton takes its token as an argument only.

    Returns:
        whether the arguments are free of the secret. The kernel may not allow it (Yama with `ptrace_scope` 2 or 3).
    """
    with suppress(OSError, ValueError):
        # fields 48 and 49; the name of the command, field 2, may contain spaces and brackets
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        with (_PROC / str(pid) / "mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            arguments = memory.read(end - start) or b""
            for found in re.finditer(re.escape(secret.encode()), arguments):
                memory.seek(start + found.start())
                memory.write(b"*" * len(secret))
    with suppress(OSError):
        return secret.encode() not in (_PROC / str(pid) / "cmdline").read_bytes()
    return True  # the process has ended
