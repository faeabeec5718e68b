"""The token that Triton requires at its endpoints for operators, among them shared memory; and where it comes from.

Shared by the client and the service; not for callers of the client. docs/adr/0014-shared-memory.md gives the reasons.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The same as embedded.access.HEADER (a test compares them), because a client installs nothing of the server.
HEADER = "triton-grpc-protocol-avatar-token"
TOKEN_VARIABLE, FILE_VARIABLE = "AVATAR_TRITON_TOKEN", "AVATAR_TRITON_TOKEN_FILE"


@dataclass(frozen=True)
class Token:
    """A token, or the file that holds it. It is never shown: not in a repr, an error or a log.

    The file is read for each call that needs the token, because a server that restarts may write a new one.
    """

    text: str = field(default="", repr=False)
    file: Path | None = None

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Token:
        """Return the token of `AVATAR_TRITON_TOKEN`, else of the file that `AVATAR_TRITON_TOKEN_FILE` names."""
        file = env.get(FILE_VARIABLE)
        return cls(env.get(TOKEN_VARIABLE, ""), Path(file) if file else None)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the gRPC metadata of a call; empty where there is no token."""
        text = (self.text or self._read()).strip()
        # gRPC refuses other characters, and its error would show them
        return ((HEADER, text),) if text and text.isascii() and text.isprintable() else ()

    def _read(self) -> str:
        try:
            return self.file.read_text("utf-8") if self.file else ""
        except (OSError, UnicodeDecodeError):  # the server has stopped, or does not let this user read it
            return ""
