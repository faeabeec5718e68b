"""The networks have the original's tensors and, with the golden weights, its outputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from export.networks.inference import S3FDGraph, Wav2LipGraph
from export.networks.s3fd import S3FD
from export.networks.wav2lip import Wav2Lip
from lipsync import face_detection
from tests.support.golden_weights import GOLDEN


@pytest.mark.parametrize(("net", "state"), [(Wav2Lip, "wav2lip_state.json"), (S3FD, "s3fd_state.json")])
def test_a_network_has_exactly_the_tensors_of_the_original(net: type[nn.Module], state: str) -> None:
    expected = {name: (shape, dtype) for name, shape, dtype in json.loads((GOLDEN / state).read_text())}
    with torch.device("meta"):
        actual = {n: (list(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in net().state_dict().items()}
    assert actual == expected


def test_s3fd_gives_the_twelve_maps_of_the_original(s3fd_graph: S3FDGraph) -> None:
    data = np.load(GOLDEN / "s3fd.npz")
    image = data["frames"][..., ::-1].astype(np.float32) - np.array(face_detection.RGB_MEANS, np.float32)
    with torch.inference_mode():
        maps = s3fd_graph.net(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
    assert len(maps) == 12
    for i, map_ in enumerate(maps):
        expected = data[f"head{i}"]
        assert map_.shape == expected.shape
        assert np.abs(map_.numpy() - expected).max() <= 1e-3 * np.abs(expected).max(), f"head{i}"


def test_wav2lip_gives_the_mouths_of_the_original(wav2lip_graph: Wav2LipGraph) -> None:
    data = np.load(GOLDEN / "wav2lip.npz")
    whole = data["faces"].astype(np.float32) / 255
    masked = whole.copy()
    masked[:, 48:] = 0
    face = np.concatenate((masked, whole), axis=3).transpose(0, 3, 1, 2).copy()
    with torch.inference_mode():
        mouth = wav2lip_graph.net(torch.from_numpy(data["mel"][:, None]), torch.from_numpy(face))
    mouths = mouth.numpy().transpose(0, 2, 3, 1) * 255
    assert np.abs(mouths - data["mouths_f32"]).max() < 0.05
