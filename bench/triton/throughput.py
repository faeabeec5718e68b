"""How many mouths a second `wav2lip` gives through gRPC: many requests at once, for some seconds."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype

from embedded.errors import EmbeddedError
from embedded.server import Triton
from lipsync import tensors
from lipsync.tensors import WAV2LIP

GOAL = 20_000  # frames a second on an H100, 8 requests of 64
_CALL_SECONDS = 120.0


@dataclass(frozen=True)
class Figure:
    """What one run gave.

    Attributes:
        frames_a_second: mouths of all callers.
        requests, batch: callers at once, and mouths in a request of theirs.
        batches: rows of a run to how many runs had them, by the server's statistics.
        device: what the net ran on.
        backend, precision: what it was exported as.
    """

    frames_a_second: float
    requests: int
    batch: int
    batches: Mapping[int, int]
    device: str
    backend: str
    precision: str


def main(words: Sequence[str]) -> int:
    """`python -m bench gpu`. Exit status: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m bench gpu",
        description="Frames a second of wav2lip through gRPC, many requests at once; made for a GPU.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C.",
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("build/repository"), help="exported models (default: build/repository)"
    )
    parser.add_argument("--requests", type=int, default=8, help="requests at once (default 8)")
    parser.add_argument("--batch", type=int, default=64, help="mouths in a request (default 64)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long it lasts, after a second of warm-up")
    parser.add_argument("--out", type=Path, default=Path("out/bench-gpu.json"), help="the figure, as JSON")
    options = parser.parse_args(words)
    try:
        figure = measure(options.repository, options.requests, options.batch, options.seconds)
        report(figure, options.out)
    except (EmbeddedError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def measure(repository: Path, requests: int, batch: int, seconds: float) -> Figure:
    """Start Triton on `repository`, call `wav2lip` from `requests` threads, and count.

    Raises:
        ValueError: the model takes no such batch: it was exported for a CPU.
        EmbeddedError: Triton does not start.
    """
    with Triton(repository, say=print) as triton:
        client = InferenceServerClient(triton.grpc_address)
        config = client.get_model_config(WAV2LIP.name, as_json=True)["config"]
        if batch > int(config["max_batch_size"]):
            raise ValueError(
                f"wav2lip takes {config['max_batch_size']} mouths at most here, {batch} asked; "
                "export with --profile gpu, or ask with a smaller --batch"
            )
        _call_for(triton.grpc_address, requests, batch, 1.0)
        before = _batches(client)
        began = time.perf_counter()
        frames = _call_for(triton.grpc_address, requests, batch, seconds)
        took = time.perf_counter() - began
        after = _batches(client)
        client.close()
    grown = {rows: count - before.get(rows, 0) for rows, count in sorted(after.items()) if count > before.get(rows, 0)}
    kind = config["instance_group"][0]["kind"]
    precision = config.get("parameters", {}).get("precision", {}).get("string_value", "unknown")
    return Figure(frames / took, requests, batch, grown, _device(kind), config["backend"], precision)


def report(figure: Figure, out: Path) -> None:
    """Print the figure, and write it as JSON."""
    print(f"wav2lip, {figure.backend} {figure.precision}, on {figure.device}")
    print(f"{figure.requests} requests of {figure.batch} at once: {figure.frames_a_second:,.0f} frames/s")
    print("batches: " + ", ".join(f"{count} of {rows}" for rows, count in figure.batches.items()))
    print(f"(goal on an H100, 8 requests of 64: {GOAL:,} frames/s)")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(asdict(figure), indent=2) + "\n", "utf-8")


def _call_for(address: str, requests: int, batch: int, seconds: float) -> int:
    """Mouths that came back before the time was over and right after it."""
    counts, failures = [0] * requests, list[Exception]()
    deadline = time.perf_counter() + seconds

    def ask(caller: int) -> None:
        noise = np.random.default_rng(caller)
        face = noise.integers(0, 256, (batch, tensors.FACE_SIZE, tensors.FACE_SIZE, 3), np.uint8)
        mel = noise.uniform(-4, 4, (batch, tensors.MEL_BANDS, tensors.WINDOW_COLUMNS)).astype(np.float32)
        inputs = []
        arrays: tuple[NDArray[Any], ...] = (face, mel)
        for tensor, array in zip(WAV2LIP.inputs, arrays, strict=True):
            inputs.append(InferInput(tensor.name, list(array.shape), np_to_triton_dtype(array.dtype)))
            inputs[-1].set_data_from_numpy(array)
        client = InferenceServerClient(address)
        try:
            while time.perf_counter() < deadline and not failures:
                answer = client.infer(WAV2LIP.name, inputs, client_timeout=_CALL_SECONDS)
                counts[caller] += len(answer.as_numpy(WAV2LIP.outputs[0].name))
        except Exception as error:
            failures.append(error)
        finally:
            client.close()

    callers = [threading.Thread(target=ask, args=(i,)) for i in range(requests)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    if failures:
        raise ValueError(f"a request failed: {failures[0]}") from failures[0]
    return sum(counts)


def _batches(client: InferenceServerClient) -> dict[int, int]:
    statistics = client.get_inference_statistics(WAV2LIP.name).model_stats[0]
    return {entry.batch_size: entry.compute_infer.count for entry in statistics.batch_stats}


def _device(kind: str) -> str:
    return device_name() if kind == "KIND_GPU" else "the CPU"


def device_name() -> str:
    """The GPU's own name."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "a GPU"
