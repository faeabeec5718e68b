"""A substitute for NVIDIA's `trtexec` and `nvidia-smi`, for machines without a GPU.

It records its arguments, checks them against the options of the release that it stands for, and "builds" a plan that
is a copy of the ONNX file. Running a plan returns the crops as mouths, or finds `FACE` in every image. Only tests of
`export/plans` use it: no real plan is built. It imports the standard library only, because it is started often.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# Of samples/common/sampleOptions.cpp in NVIDIA/TensorRT, branches release/10.13 and release/11.1: those that are used.
BOTH = (
    *("onnx", "saveEngine", "loadEngine", "stronglyTyped", "noTF32", "builderOptimizationLevel", "timingCacheFile"),
    *("skipInference", "profile", "minShapes", "optShapes", "maxShapes", "useProfile", "shapes", "loadInputs"),
    *("exportOutput", "iterations", "duration", "warmUp", "help"),
)
ONLY_11 = ("includeDataTransfers", "noCudaGraph")
FACE, SCORE, CANDIDATES = (10.0, 20.0, 50.0, 60.0), 0.9, 1024


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
        run = f'exec {sys.executable} -I -S {Path(__file__)} "{self._state}" "{self._calls}" "$@"'
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


def _main(state: str, calls: str, *arguments: str) -> int:
    import time

    behavior = Behavior(**json.loads(Path(state).read_text()))
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{behavior.version}] [b1] # trtexec {' '.join(arguments)}")
    with Path(calls).open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    pairs = [argument.removeprefix("--").partition("=") for argument in arguments]
    known = BOTH + (ONLY_11 if behavior.version >= 110000 else ())
    unknown = [name for name, _, _ in pairs if name not in known]
    if unknown:
        print(f"[E] Unknown option: --{unknown[0]}")
        return 1
    options = {name: value for name, _, value in pairs}
    if "help" in options:
        return 0
    if "loadEngine" in options:
        return _run(options, behavior)
    time.sleep(behavior.sleeps)
    if behavior.fails:
        print(f"[E] {behavior.fails}\n&&&& FAILED TensorRT.trtexec [TensorRT v{behavior.version}]")
        return 1
    Path(options["timingCacheFile"]).touch()
    if not behavior.writes_nothing:
        Path(options["saveEngine"]).write_bytes(Path(options["onnx"]).read_bytes())
    return 0


def _run(options: dict[str, str], behavior: Behavior) -> int:
    shapes = dict(each.split(":") for each in options["shapes"].split(","))
    files = dict(each.split(":") for each in options["loadInputs"].split(","))
    count = int(next(iter(shapes.values())).split("x")[0])
    if "face" in files:
        darker = behavior.darker if behavior.bad_profile in (None, int(options["useProfile"])) else 0
        levels = bytes(max(0, level - darker) for level in range(256))
        values: dict[str, tuple[str, Sequence[float]]] = {
            "mouth": (shapes["face"], list(Path(files["face"]).read_bytes().translate(levels)))
        }
    else:
        padding = CANDIDATES - 1
        values = {
            "boxes": (f"{count}x{CANDIDATES}x4", [*FACE, *[0.0] * 4 * padding] * count),
            "scores": (f"{count}x{CANDIDATES}", [SCORE, *[0.0] * padding] * count),
        }
    written = [{"name": name, "dimensions": shape, "values": each} for name, (shape, each) in values.items()]
    Path(options["exportOutput"]).write_text(json.dumps(written))
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
