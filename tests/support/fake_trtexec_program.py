"""The program that `fake_trtexec` puts in the place of `trtexec`: `BEHAVIOR.json CALLS ARGUMENT...`.

It records its arguments, checks them against the options of the release that it stands for, and "builds" a plan that
is a copy of the ONNX file. Running a plan returns the crops as mouths, or finds `FACE` in every image. The tests start
it a hundred times, so it imports nothing that takes longer than to start the interpreter.
"""

# ruff: noqa: PTH123 - pathlib takes half as long as the interpreter to start

from __future__ import annotations

import json
import sys
import time

# Of samples/common/sampleOptions.cpp in NVIDIA/TensorRT, branches release/10.13 and release/11.1: those that are used.
BOTH = (
    *("onnx", "saveEngine", "loadEngine", "stronglyTyped", "noTF32", "builderOptimizationLevel", "timingCacheFile"),
    *("skipInference", "profile", "minShapes", "optShapes", "maxShapes", "useProfile", "shapes", "loadInputs"),
    *("exportOutput", "iterations", "duration", "warmUp", "help"),
)
ONLY_11 = ("includeDataTransfers", "noCudaGraph")
FACE, SCORE, CANDIDATES = (10.0, 20.0, 50.0, 60.0), 0.9, 1024


def main(state: str, calls: str, *arguments: str) -> int:
    """Do what the file `state` says (the fields of `fake_trtexec.Behavior`); return the exit status."""
    with open(state) as file:
        behavior = json.load(file)
    version = behavior["version"]
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] [b1] # trtexec {' '.join(arguments)}")
    with open(calls, "a") as file:
        file.write(json.dumps(arguments) + "\n")
    pairs = [argument.removeprefix("--").partition("=") for argument in arguments]
    known = BOTH + (ONLY_11 if version >= 110000 else ())
    unknown = [name for name, _, _ in pairs if name not in known]
    if unknown:
        print(f"[E] Unknown option: --{unknown[0]}")
        return 1
    options = {name: value for name, _, value in pairs}
    if "help" in options:
        return 0
    if "loadEngine" in options:
        return _run(options, behavior["darker"], behavior["bad_profile"])
    time.sleep(behavior["sleeps"])
    if behavior["fails"]:
        print(f"[E] {behavior['fails']}\n&&&& FAILED TensorRT.trtexec [TensorRT v{version}]")
        return 1
    open(options["timingCacheFile"], "a").close()
    if not behavior["writes_nothing"]:
        with open(options["onnx"], "rb") as onnx, open(options["saveEngine"], "wb") as plan:
            plan.write(onnx.read())
    return 0


def _run(options: dict[str, str], darker: int, bad_profile: int | None) -> int:
    shapes = dict(each.split(":") for each in options["shapes"].split(","))
    files = dict(each.split(":") for each in options["loadInputs"].split(","))
    count = int(next(iter(shapes.values())).split("x")[0])
    if "face" in files:
        wrong = bad_profile in (None, int(options["useProfile"]))
        texts = [str(max(0, level - darker) if wrong else level) for level in range(256)]
        outputs = [("mouth", shapes["face"], _levels(files["face"], count, texts))]
    else:
        padding = CANDIDATES - 1
        outputs = [
            ("boxes", f"{count}x{CANDIDATES}x4", json.dumps([*FACE, *[0.0] * 4 * padding] * count)),
            ("scores", f"{count}x{CANDIDATES}", json.dumps([SCORE, *[0.0] * padding] * count)),
        ]
    written = [f'{{"name": "{name}", "dimensions": "{shape}", "values": {each}}}' for name, shape, each in outputs]
    with open(options["exportOutput"], "w") as file:
        file.write(f"[{', '.join(written)}]")
    return 0


def _levels(path: str, count: int, texts: list[str]) -> str:
    """Return the gray levels of a file of `count` rows as JSON; the tests repeat one row up to the batch."""
    with open(path, "rb") as file:
        levels = file.read()
    size, rows = len(levels) // count, dict[bytes, str]()
    split = [levels[start : start + size] for start in range(0, len(levels), size)]
    for row in split:
        if row not in rows:
            rows[row] = ", ".join([texts[level] for level in row])
    return f"[{', '.join(rows[row] for row in split)}]"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
