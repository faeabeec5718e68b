"""`python -m bench throughput`: frames per second of `wav2lip` through gRPC, with many concurrent requests."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype

from embedded.server import Triton
from lipsync import tensors
from lipsync.arrays import Batch
from lipsync.tensors import WAV2LIP

from ..cli import DONE, positive_int
from ..machine import gpu_name
from ..paths import OUT, ROOT

GOAL = 20_000  # frames per second on an H100, with 8 concurrent requests of 64 frames
WARM_UP_SECONDS = 1.0
_CALL_SECONDS = 120.0


@dataclass(frozen=True)
class Throughput:
    """Result of one run.

    Attributes:
        frames_per_second: of all callers.
        requests, batch: concurrent requests, and frames per request.
        batches: batch size to number of executed batches, according to the server's statistics.
        device: that the network ran on.
        backend, precision: of the exported network.
    """

    frames_per_second: float
    requests: int
    batch: int
    batches: Mapping[int, int]
    device: str
    backend: str
    precision: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `throughput`."""
    parser.add_argument(
        "--repository",
        type=Path,
        default=ROOT / "build" / "repository",
        help="exported models (default: build/repository)",
    )
    parser.add_argument("--requests", type=positive_int, default=8, help="concurrent requests (default: 8)")
    parser.add_argument("--batch", type=positive_int, default=64, help="frames per request (default: 64)")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration, after a second of warm-up (default: 10)")
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT / "throughput.json",
        help="JSON file of the result (default: out/throughput.json)",
    )


def run(args: argparse.Namespace) -> int:
    """Start Triton, measure, print and write the result."""
    with Triton(args.repository, on_progress=print) as triton:
        result = measure(triton.grpc_address, args.requests, args.batch, args.seconds)
    print(text(result))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(asdict(result), indent=2) + "\n", "utf-8")
    return DONE


def measure(address: str, requests: int, batch: int, seconds: float) -> Throughput:
    """Call `wav2lip` from `requests` threads, and count the frames.

    Args:
        address: gRPC address of Triton.
        requests: number of concurrent requests.
        batch: frames per request.
        seconds: duration of the measurement.

    Raises:
        ValueError: the model does not accept this batch size, because it was exported for a CPU; or a request failed.
    """
    client = InferenceServerClient(address)
    try:
        config = client.get_model_config(WAV2LIP.name, as_json=True)["config"]
        if batch > int(config["max_batch_size"]):
            raise ValueError(
                f"wav2lip accepts at most {config['max_batch_size']} frames per request here, not {batch}; "
                "export the models with --profile gpu, or pass a smaller --batch"
            )
        _load(address, requests, batch, WARM_UP_SECONDS)
        before = _batches(client)
        start = time.perf_counter()
        frames = _load(address, requests, batch, seconds)
        took = time.perf_counter() - start
        after = _batches(client)
    finally:
        client.close()
    executed = {size: count - before.get(size, 0) for size, count in sorted(after.items())}
    precision = config.get("parameters", {}).get("precision", {}).get("string_value", "unknown")
    return Throughput(
        frames_per_second=frames / took,
        requests=requests,
        batch=batch,
        batches={size: count for size, count in executed.items() if count},
        device=_device(config["instance_group"][0]["kind"]),
        backend=config["backend"],
        precision=precision,
    )


def text(result: Throughput) -> str:
    """Return the result in four lines."""
    return (
        f"wav2lip, {result.backend} {result.precision}, on {result.device}\n"
        f"{result.requests} concurrent requests of {result.batch}: {result.frames_per_second:,.0f} frames/s\n"
        f"batches: {', '.join(f'{count} of {size}' for size, count in result.batches.items())}\n"
        f"(goal on an H100, 8 concurrent requests of 64: {GOAL:,} frames/s)"
    )


def _load(address: str, requests: int, batch: int, seconds: float) -> int:
    """Return the number of frames in the responses to all requests that started within `seconds`."""
    counts, failures = [0] * requests, list[Exception]()
    deadline = time.perf_counter() + seconds

    def call(caller: int) -> None:
        noise = np.random.default_rng(caller)
        face = noise.integers(0, 256, (batch, tensors.FACE_SIZE, tensors.FACE_SIZE, 3), np.uint8)
        mel = noise.uniform(-4, 4, (batch, tensors.MEL_BANDS, tensors.WINDOW_COLUMNS)).astype(np.float32)
        inputs = []
        arrays: Batch = (face, mel)
        for tensor, array in zip(WAV2LIP.inputs, arrays, strict=True):
            inputs.append(InferInput(tensor.name, list(array.shape), np_to_triton_dtype(array.dtype)))
            inputs[-1].set_data_from_numpy(array)
        client = InferenceServerClient(address)
        try:
            while time.perf_counter() < deadline and not failures:
                response = client.infer(WAV2LIP.name, inputs, client_timeout=_CALL_SECONDS)
                counts[caller] += len(response.as_numpy(WAV2LIP.outputs[0].name))
        except Exception as error:
            failures.append(error)
        finally:
            client.close()

    callers = [threading.Thread(target=call, args=(i,)) for i in range(requests)]
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
    return gpu_name() if kind == "KIND_GPU" else "the CPU"
