"""A substitute for NVIDIA's `trtexec` and `nvidia-smi`, for machines without a GPU.

The program itself is `fake_trtexec_program.py`. Only tests of `export/plans` use it: no real plan is built.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support import fake_trtexec_program


@dataclass(frozen=True)
class Behavior:
    """What the fake does.

    Attributes:
        version: its number of the version, as TensorRT writes it.
        fails: its last line, if every build fails.
        darker: gray levels by which its mouths are too dark.
        bad_profile: the only optimization profile in which they are; None for all.
        sleeps: seconds that a build takes.
        writes_nothing: whether a build ends without a plan.
    """

    version: int = 110100
    fails: str = ""
    darker: int = 0
    bad_profile: int | None = None
    sleeps: float = 0.0
    writes_nothing: bool = False


class FakeTrtexec:
    """The program in a folder; `behavior` may be changed between its runs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.program = folder / "trtexec"
        self._state, self._calls = folder / "behavior.json", folder / "calls"
        self._calls.touch()
        self.behave(Behavior())
        run = f'exec {sys.executable} -I -S {fake_trtexec_program.__file__} "{self._state}" "{self._calls}" "$@"'
        _write_script(self.program, run)

    def behave(self, behavior: Behavior) -> None:
        """Change what it does."""
        self._state.write_text(json.dumps(asdict(behavior)))

    def builds(self) -> list[list[str]]:
        """Return the arguments of each build so far."""
        calls = [json.loads(line) for line in self._calls.read_text().splitlines()]
        return [call for call in calls if any(argument.startswith("--saveEngine=") for argument in call)]


def write_nvidia_smi(path: Path, *gpus: str, status: int = 0) -> str:
    """Write a substitute that lists GPUs in lines such as `NVIDIA H100 80GB HBM3, 9.0`; return its path."""
    _write_script(path, f"cat <<'END'\n{chr(10).join(gpus)}\nEND\nexit {status}")
    return str(path)


def _write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
