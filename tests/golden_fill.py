"""The weights that the golden data was computed with: every tensor filled from its own name."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from export import stand_ins_segmentation

GOLDEN = Path(__file__).with_name("golden")


def golden_state(spec_json: Path) -> dict[str, Tensor]:
    """A state dict for the tensors listed in `spec_json` ([name, shape, dtype] each)."""
    spec: list[tuple[str, list[int], str]] = json.loads(spec_json.read_text())
    return {name: _fill(name, shape, dtype) for name, shape, dtype in spec}


def _fill(name: str, shape: list[int], dtype: str) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    noise = np.asarray(np.random.RandomState(crc32(name.encode())).standard_normal(shape))
    return torch.from_numpy(_shape_noise(name, noise).astype(dtype))


def _shape_noise(name: str, noise: np.ndarray) -> np.ndarray:
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(noise)
    if name.endswith("running_mean"):
        return 0.1 * noise
    if noise.ndim == 4:
        gain = 10 if "norm_mbox" in name else 2 if name.startswith("output_block.1") else 1
        return gain * noise * np.sqrt(1 / np.prod(noise.shape[1:]))
    if name.endswith("weight"):
        return 1 + 0.1 * noise
    return 0.05 * noise


def write_golden_weights(folder: Path) -> None:
    """The four checkpoints under their official names: the networks with the golden fill, the segmentation's stand-in.

    The two Wav2Lip files hold the same weights in two of the forms that are met in the wild. The repository
    refuses stand-ins beside real checkpoints, so the segmentation's carries no mark here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wav2lip = golden_state(GOLDEN / "wav2lip_state.json")
    torch.save({"state_dict": {f"module.{name}": value for name, value in wav2lip.items()}}, folder / "wav2lip.pth")
    torch.save(wav2lip, folder / "wav2lip_gan.pth")
    torch.save(golden_state(GOLDEN / "s3fd_state.json"), folder / "s3fd.pth")
    stand_ins_segmentation.write(folder / "xception_pascalvoc.pb", mark="")
