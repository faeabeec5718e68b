"""Keep a streamed result in a file until it is signed: a signature covers all of it, and is stored at its start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from ..files import opened
from .mp4_fragments import Fragments

READ_BYTES = 1 << 20


class Spool:
    """The chunks of one result in a file, which is deleted with the folder of the request.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, container: str) -> None:
        """Prepare for one result, an `mp4` or a `webm`; the file does not exist yet."""
        self.path = path
        self._container = container

    def add(self, chunks: Sequence[bytes]) -> None:
        """Append chunks to the file. This blocks on the disk."""
        with self.path.open("ab") as file:
            file.writelines(chunks)

    async def read(self) -> AsyncGenerator[bytes]:
        """Yield the chunks of the file, each of them whole fragments."""
        fragments = Fragments(self._container)
        async with opened(self.path, "rb") as file:
            while data := await asyncio.to_thread(file.read, READ_BYTES):
                for chunk in fragments.feed(data):
                    yield chunk
        if rest := fragments.flush():
            yield rest
