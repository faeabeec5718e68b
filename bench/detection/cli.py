"""`python -m bench detection`: the boxes of `detection=fast` against those of every frame."""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path
from typing import Any

from ..cli import DONE
from . import carphone, recording
from .measure import Comparison, compare, detect_every
from .mtcnn import Mtcnn

SIZES = ((352, 288), (704, 576))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `detection`."""
    parser.description = (
        "Track the face of Xiph's sequence `carphone` with MTCNN in the place of S3FD, and compare the boxes with "
        "those of every frame. Both come from wheels that `make setup` installs. No Triton is needed."
    )
    parser.add_argument(
        "--sizes", type=_sizes, default=SIZES, metavar="WxH,…", help="of the scaled frames (default: 352x288,704x576)"
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="also write the detector's boxes for the tests")


def run(args: argparse.Namespace) -> int:
    """Measure, and print a table."""
    detector = Mtcnn()
    recorded: dict[str, dict[str, Any]] = {}
    print(header())
    for width, height in args.sizes:
        images = carphone.frames(width, height)
        every = asyncio.run(detect_every(images, detector.best))
        print(line(f"{width}×{height}", asyncio.run(compare(images, every, detector.best))), flush=True)
        if args.record:
            recorded[f"{width}x{height}"] = recording.record(images, every, detector)
    if args.record:
        recording.write(args.record, recorded)
    return DONE


def header() -> str:
    """Return the head of the table."""
    return (
        "| frames | IoU to every frame, mean | worst | the detector's own, frame to frame "
        "| IoU to the steady path: fast | every frame | pixels | images |\n|---|---|---|---|---|---|---|---|"
    )


def line(name: str, result: Comparison) -> str:
    """Return a line of the table."""
    shares = (result.mean, result.worst, result.wavering, result.steady, result.steady_every)
    cells = [name, *(f"{share:.3f}" for share in shares), f"{result.pixels:.1%}", str(result.calls)]
    return f"| {' | '.join(cells)} |"


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    sizes = [re.fullmatch(r"(\d{2,4})x(\d{2,4})", each) for each in text.split(",")]
    found = tuple((int(size[1]), int(size[2])) for size in sizes if size)
    if len(found) < len(sizes):
        raise argparse.ArgumentTypeError(f"{text}: not a list of sizes such as 352x288,704x576")
    return found
