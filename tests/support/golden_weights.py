"""The weights that the golden data was computed with: every tensor filled from its own name."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from export.networks import random_weights
from export.stand_ins import segmentation

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_state(spec_json: Path) -> dict[str, Tensor]:
    """A state dict for the tensors listed in `spec_json` ([name, shape, dtype] each)."""
    spec: list[tuple[str, list[int], str]] = json.loads(spec_json.read_text())
    return {
        name: random_weights.fill(name, torch.empty(shape, dtype=getattr(torch, dtype))) for name, shape, dtype in spec
    }


def write_golden_weights(folder: Path) -> None:
    """The four checkpoints under their official names: the networks with the golden fill, the segmentation's stand-in.

    The two Wav2Lip files hold the same weights in two of the forms that are met in the wild. The repository
    rejects stand-ins in one folder with real checkpoints, so the segmentation's carries no mark here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wav2lip = golden_state(GOLDEN / "wav2lip_state.json")
    torch.save({"state_dict": {f"module.{name}": value for name, value in wav2lip.items()}}, folder / "wav2lip.pth")
    torch.save(wav2lip, folder / "wav2lip_gan.pth")
    torch.save(golden_state(GOLDEN / "s3fd_state.json"), folder / "s3fd.pth")
    segmentation.write(folder / "xception_pascalvoc.pb", mark="")
