"""Compile a TorchScript module with `torch.compile`, one graph for each bucket, and check what comes out.

`torch.compile` does not look into TorchScript, so the calls that a module makes are recorded first. The compiler keeps
what it made in a folder, which makes the next start a matter of seconds.
"""

from __future__ import annotations

import locale
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ..backend_config import TensorSpec
from .slots import Net

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # PyTorch's own
THREADS_VARIABLE = "TORCHINDUCTOR_COMPILE_THREADS"
# Against the TorchScript module on the same device. A fused FP16 network rounds differently: 50 dB and more. A wrong
# one is far below, so the exporter's bars, which the module has passed, hold for the compiled one as well.
MIN_PSNR_DB = 40.0
MAX_REASON = 300  # letters of an error; the compiler's begin with a heading, and end with pages of hints
_SEED = 0


def set_up_compiler(folder: Path) -> None:
    """Make the compiler keep its results in this folder; call it once per process, before the first compilation."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[CACHE_VARIABLE] = str(folder)
    # more would be processes of `sys.executable`, which in a model's process is not always Python
    os.environ.setdefault(THREADS_VARIABLE, "1")
    # convolutions that the compiler leaves to cuDNN lose the flag of their archive
    torch.backends.cudnn.benchmark = True
    # The Python of a model's process takes text files for ASCII, whatever the environment says. The compiler's are not.
    with suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")


def compile_buckets(
    net: Net, mode: str, inputs: Sequence[TensorSpec], buckets: Sequence[int], device: torch.device
) -> Mapping[int, Net]:
    """Return a compiled network for each bucket.

    Raises:
        Exception: the module cannot be recorded or compiled, or the result differs from it; any type, because the
            compiler has no common base class.
    """
    return {size: _compile(net, mode, [_random(spec, size, device) for spec in inputs]) for size in buckets}


def compile_or_keep(
    net: Net,
    mode: str,
    inputs: Sequence[TensorSpec],
    buckets: Sequence[int],
    device: torch.device,
    log: Callable[[str], None],
) -> Mapping[int, Net]:
    """Return a network for each bucket: compiled if that works, otherwise `net` itself, with the reason in the log."""
    try:
        return compile_buckets(net, mode, inputs, buckets, device)
    except Exception as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        log(f"torch.compile failed, TorchScript runs instead: {type(error).__name__}: {reason}")
        return dict.fromkeys(buckets, net)


def psnr(outputs: Tensor | tuple[Tensor, ...], expected: Tensor | tuple[Tensor, ...]) -> float:
    """Return the lowest PSNR of an output in dB; the peak is 255 for bytes and the largest expected value otherwise."""
    worst = math.inf
    for got, want in zip(_tensors(outputs), _tensors(expected), strict=True):
        peak = 255.0 if want.dtype == torch.uint8 else float(want.abs().max())
        error = float((got.double() - want.double()).square().mean())
        if error and not peak:
            return -math.inf
        worst = min(worst, 10 * math.log10(peak**2 / error)) if error else worst
    return worst


def _compile(net: Net, mode: str, sample: Sequence[Tensor]) -> Net:
    with torch.no_grad():
        expected = net(*sample)
        recorded = make_fx(net)(*sample)
        compiled: Net = torch.compile(recorded, mode=mode, fullgraph=True, dynamic=False)
        found = psnr(compiled(*sample), expected)
    if not found >= MIN_PSNR_DB:
        raise ValueError(f"its outputs differ from the module's: {found:.1f} dB, at least {MIN_PSNR_DB:.0f} expected")
    return compiled


def _random(spec: TensorSpec, rows: int, device: torch.device) -> Tensor:
    """Return noise of one bucket: bytes of any value, numbers like those of a mel spectrogram."""
    noise = np.random.default_rng(_SEED)
    shape = (rows, *spec.shape)
    array = noise.integers(0, 256, shape) if spec.dtype == np.uint8 else noise.uniform(-4, 4, shape)
    return torch.from_numpy(array.astype(spec.dtype)).to(device)


def _tensors(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
