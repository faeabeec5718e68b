"""Networks with seeded random weights, on which exports are evaluated and timed in addition to stand-ins.

The rule is that of the golden data (`tests/golden`): the values of a tensor depend only on its name, so that everybody
can reproduce them. The tests that compare with the golden data check it.
"""

from __future__ import annotations

import math
from typing import TypeVar
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from .s3fd import S3FD
from .wav2lip import Wav2Lip

Net = TypeVar("Net", bound=nn.Module)


def wav2lip() -> Wav2Lip:
    """Return Wav2Lip in eval mode."""
    return _filled(Wav2Lip)


def s3fd() -> S3FD:
    """Return S3FD in eval mode; it finds "faces" of all sizes in any image."""
    return _filled(S3FD)


def fill(name: str, like: Tensor) -> Tensor:
    """Return random values for the tensor `name`, of the shape and type of `like`.

    The source is normal noise n, seeded with the CRC-32 of the name. Convolutions: n / sqrt(fan-in), times 10 in
    S3FD's heads and 2 in the last layer of Wav2Lip; running variances: 1 + 0.1·|n|; running means: 0.1·n; other
    weights: 1 + 0.1·n; biases: 0.05·n.
    """
    if name.endswith("num_batches_tracked"):
        return torch.zeros(like.shape, dtype=like.dtype)  # with data: `like` may be on the device `meta`
    noise = np.asarray(np.random.RandomState(crc32(name.encode())).standard_normal(tuple(like.shape)))
    if name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(noise)
    elif name.endswith("running_mean"):
        values = 0.1 * noise
    elif noise.ndim == 4:
        gain = 10 if "norm_mbox" in name else 2 if name.startswith("output_block.1") else 1
        values = gain * noise * math.sqrt(1 / math.prod(noise.shape[1:]))
    else:
        values = 1 + 0.1 * noise if name.endswith("weight") else 0.05 * noise
    return torch.from_numpy(values).to(like.dtype)


def _filled(kind: type[Net]) -> Net:
    with torch.device("meta"):
        net = kind()
    state = {name: fill(name, tensor) for name, tensor in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    return net.requires_grad_(False).eval()
