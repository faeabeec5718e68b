"""A package index on 127.0.0.1 with the CPU build of torch, if this machine has it as a file.

PyPI's torch is gigabytes of CUDA, and PyTorch's own index may not be reachable.
"""

from __future__ import annotations

import functools
import http.server
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from .commands import attempt


class TorchIndex:
    """Serves the wheel while the block runs; `url` is empty where there is none."""

    def __init__(self) -> None:
        """Find the wheel in the folders that pip is configured to look in."""
        folders = attempt("python3", "-m", "pip", "config", "get", "global.find-links").stdout.split()
        self._wheels = [wheel for folder in folders for wheel in Path(folder).glob("torch-*+cpu-*.whl")]
        self.url = ""

    def __enter__(self) -> Self:
        """Start the server."""
        if self._wheels:
            self._folder = tempfile.TemporaryDirectory(prefix="torch-index-")
            packages = Path(self._folder.name) / "torch"
            packages.mkdir()
            for wheel in self._wheels:
                (packages / wheel.name).symlink_to(wheel)
            handler = functools.partial(_Quiet, directory=self._folder.name)
            self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=self._server.serve_forever, daemon=True).start()
            self.url = f"http://127.0.0.1:{self._server.server_port}/"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        if self._wheels:
            self._server.shutdown()
            self._server.server_close()
            self._folder.cleanup()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""
