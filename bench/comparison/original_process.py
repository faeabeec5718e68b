"""Run the original algorithm in a separate process, so that its memory and its threads can be measured.

`python -m bench.comparison.original_process WEIGHTS DEVICE` loads the generator, as the original does at start. Then it
processes one clip per line of JSON on stdin, and writes a line of JSON with the times to stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from .generated_media import Files
from .original import Sample, Stages


class _Response(TypedDict, total=False):
    """One line of the process: the fields of `Stages`, or an error."""

    seconds: dict[str, float]
    scaled: dict[str, tuple[int, int]]
    error: str


class OriginalProcess:
    """`with OriginalProcess(weights, "cpu") as original: original.clip(files, …)`.

    Args:
        weights: folder of the checkpoints.
        device: of PyTorch: `cpu`, or `cuda`.
    """

    def __init__(self, weights: Path, device: str) -> None:
        self._argv = [sys.executable, "-m", "bench.comparison.original_process", str(weights), device]

    def __enter__(self) -> Self:
        # in its own process group, so that Ctrl-C reaches only us; leaving the block ends the process
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
        )
        self._read_response()  # wait until it is ready
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # end its whole group, because its ffmpeg may be running
        if self._process.poll() is None:
            os.killpg(self._process.pid, 9)
        self._process.communicate()

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def clip(self, files: Files, batch: int, sample: Sample) -> Stages:
        """Process one clip, and wait for it. Raises ValueError if it failed; the process writes details to stderr."""
        request = {"face": str(files.face), "speech": str(files.speech), "batch": batch, "sample": asdict(sample)}
        assert self._process.stdin  # noqa: S101 - for mypy; it is a pipe
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ValueError("the process of the original algorithm has ended") from None
        response = self._read_response()
        return Stages(response["seconds"], {name: (part, whole) for name, (part, whole) in response["scaled"].items()})

    def _read_response(self) -> _Response:
        assert self._process.stdout  # noqa: S101 - for mypy; it is a pipe
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise ValueError(f"the process of the original algorithm has ended with status {self._process.returncode}")
        response: _Response = json.loads(line)
        if "error" in response:
            raise ValueError(f"the original algorithm failed: {response['error']}")
        return response


def _serve(weights: Path, device: str) -> None:
    import torch

    from avatar.media.ffmpeg import executable
    from export.checkpoints.load import load_wav2lip
    from export.checkpoints.registry import S3FD_FILE, WAV2LIP_FILE

    from . import original

    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of libraries must not mix with the responses
    torch.set_flush_denormal(True)  # as in the server's sessions, so that no side is slowed by denormals
    torch.backends.cudnn.benchmark = device != "cpu"  # as the original's detector sets it
    generator = original.to_device(load_wav2lip(weights / WAV2LIP_FILE), torch.device(device))
    print("{}", file=responses, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with tempfile.TemporaryDirectory() as folder:
                stages = original.clip(
                    Path(request["face"]),
                    Path(request["speech"]),
                    Path(folder) / "out.mp4",
                    weights / S3FD_FILE,
                    generator,
                    executable(),
                    batch=request["batch"],
                    sample=Sample(**request["sample"]),
                )
            response = asdict(stages)
        except Exception as error:  # the parent process raises it
            response = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(response), file=responses, flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
