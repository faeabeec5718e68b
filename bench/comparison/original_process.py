"""The original in a process of its own, so that its memory and its threads are its own.

`python -m bench.apart WEIGHTS DEVICE` loads the generator, as the original does when it starts, and then does one
clip for each line of JSON on stdin; what it took is a line on stdout.
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
from typing import Any, Self

from .generated_media import Files
from .original import Sample, Stages


class Apart:
    """`with Apart(weights, "cpu") as original: original.clip(files, …)`.

    Args:
        weights: folder of the checkpoints.
        device: of PyTorch: `cpu`, or `cuda`.
    """

    def __init__(self, weights: Path, device: str) -> None:
        self._argv = [sys.executable, "-m", "bench.comparison.original_process", str(weights), device]

    def __enter__(self) -> Self:
        # in a group of its own: a Ctrl-C is for us, and leaving the block ends it
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
        )
        self._answer()  # it is ready
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # its ffmpeg, if one runs, is in its group; where it has ended already there is none
        if self._process.poll() is None:
            os.killpg(self._process.pid, 9)
        self._process.communicate()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def clip(self, files: Files, batch: int, sample: Sample) -> Stages:
        """Do one clip, and wait for it. Raises ValueError: it failed; its own words are on stderr."""
        request = {"face": str(files.face), "speech": str(files.speech), "batch": batch, "sample": asdict(sample)}
        assert self._process.stdin  # noqa: S101 - for the types; it was asked for
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ValueError("the original's process has ended") from None
        answer = self._answer()
        return Stages(answer["seconds"], {name: (part, whole) for name, (part, whole) in answer["scaled"].items()})

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout  # noqa: S101 - for the types; it was asked for
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise ValueError(f"the original's process has ended with status {self._process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(f"the original algorithm failed: {answer['error']}")
        return answer


def _serve(weights: Path, device: str) -> None:
    import torch

    from avatar.media.ffmpeg import executable
    from export.checkpoints.load import S3FD_FILE, WAV2LIP_FILE, load_wav2lip

    from . import original

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    torch.set_flush_denormal(True)  # as in the served sessions, so that neither side pays for denormals
    torch.backends.cudnn.benchmark = device != "cpu"  # as the original's detector sets it
    generator = original.on(load_wav2lip(weights / WAV2LIP_FILE), torch.device(device))
    print("{}", file=answers, flush=True)
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
            answer = asdict(stages)
        except Exception as error:  # it is told to whoever asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
