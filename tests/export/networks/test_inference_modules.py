from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.networks.inference import S3FDGraph, Wav2LipGraph, fold_batch_norms, to_half
from lipsync import face_detection
from lipsync.tensors import CANDIDATES
from tests.support.golden_weights import GOLDEN
from tests.support.small_networks import Generator


@pytest.fixture(autouse=True)
def inference() -> object:
    with torch.inference_mode():
        yield


class Spy(nn.Module):
    """Record the inputs, and return the output; a function is called with the inputs."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output
        self.inputs: tuple[Tensor, ...] = ()

    def forward(self, *inputs: Tensor) -> object:
        self.inputs = inputs
        return self.output(*inputs) if callable(self.output) else self.output


def noise(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, shape, np.uint8))


def test_wav2lip_gives_the_golden_mouths(wav2lip_graph: Wav2LipGraph) -> None:
    with np.load(GOLDEN / "wav2lip.npz") as golden:
        mouths = wav2lip_graph(torch.from_numpy(golden["faces"]), torch.from_numpy(golden["mel"])).numpy()
        assert mouths.dtype == np.uint8
        assert np.abs(mouths.astype(int) - golden["mouths"]).max() <= 1


def test_the_input_of_wav2lip_is_the_crop_without_its_lower_half_and_then_the_whole_crop() -> None:
    spy = Spy(lambda mel, face: face[:, 3:])
    face, mel = noise(2, 96, 96, 3), torch.rand(2, 80, 16)
    Wav2LipGraph(spy)(face, mel)  # type: ignore[arg-type]
    mel_input, inputs = spy.inputs
    assert torch.equal(mel_input[:, 0], mel)
    assert not inputs[:, :3, 48:].any()
    channels_first = face.permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(inputs[:, :3, :48], channels_first[:, :, :48])
    torch.testing.assert_close(inputs[:, 3:], channels_first)


def test_a_mouth_is_truncated_to_gray_levels_not_rounded() -> None:
    levels = torch.tensor([0.0, 0.9 / 255, 127.999 / 255, 254.9 / 255, 1.0])
    output = levels.repeat(96 * 96 * 3 // 5 + 1)[: 96 * 96 * 3].reshape(1, 3, 96, 96)
    mouth = Wav2LipGraph(Spy(output))(noise(1, 96, 96, 3), torch.zeros(1, 80, 16))  # type: ignore[arg-type]
    assert mouth.permute(0, 3, 1, 2).flatten()[:5].tolist() == [0, 0, 127, 254, 255]


def test_s3fd_finds_the_golden_faces(s3fd_graph: S3FDGraph) -> None:
    with np.load(GOLDEN / "s3fd.npz") as golden:
        boxes, scores = s3fd_graph(torch.from_numpy(golden["frames"]))
        kept, kept_scores = face_detection.non_max_suppression(boxes.numpy(), scores.numpy())
        np.testing.assert_allclose(kept[:, 0], golden["best"][:, :4], atol=0.1)
        np.testing.assert_allclose(kept_scores[:, 0], golden["best"][:, 4], atol=1e-3)


def test_s3fd_decodes_like_the_reference_in_numpy(s3fd_graph: S3FDGraph) -> None:
    with np.load(GOLDEN / "s3fd.npz") as golden:
        maps = tuple(golden[f"head{i}"] for i in range(12))
    graph = S3FDGraph(Spy(tuple(torch.from_numpy(array) for array in maps)))  # type: ignore[arg-type]
    boxes, scores = graph(noise(2, 160, 224, 3))
    all_boxes, all_scores = face_detection.decode_boxes(maps)
    order = np.argsort(-all_scores, axis=1, kind="stable")[:, :CANDIDATES]
    np.testing.assert_allclose(scores, np.take_along_axis(all_scores, order, axis=1), atol=1e-6)
    # where scores are equal in float32 the order is free, so compare boxes where they are not
    alone = np.ones(scores.shape, bool)
    alone[:, 1:] &= np.diff(scores) < -1e-6
    alone[:, :-1] &= np.diff(scores) < -1e-6
    expected = np.take_along_axis(all_boxes, order[:, :, None], axis=1)
    assert alone.mean() > 0.5
    np.testing.assert_allclose(boxes[alone], expected[alone], atol=1e-2, rtol=1e-4)


def test_the_input_of_s3fd_is_rgb_minus_the_means_in_their_unusual_order() -> None:
    spy = Spy(maps_of_a_blank_image())
    image = noise(1, 32, 64, 3)
    S3FDGraph(spy)(image)  # type: ignore[arg-type]
    (inputs,) = spy.inputs
    assert inputs.shape == (1, 3, 32, 64)
    blue, green, red = image[0].float().unbind(2)
    torch.testing.assert_close(inputs[0], torch.stack((red - 104, green - 117, blue - 123)))


def test_the_candidates_of_a_small_image_are_padded_with_zeros() -> None:
    boxes, scores = S3FDGraph(Spy(maps_of_a_blank_image()))(noise(1, 32, 64, 3))  # type: ignore[arg-type]
    assert boxes.shape == (1, CANDIDATES, 4)
    cells = 6  # one of each map
    assert bool((scores[0, :cells] == 0.5).all())
    assert not scores[0, cells:].any()
    assert not boxes[0, cells:].any()


def test_folding_removes_all_batch_norms_and_keeps_the_outputs(wav2lip_graph: Wav2LipGraph) -> None:
    folded = copy.deepcopy(wav2lip_graph)
    fold_batch_norms(folded)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in wav2lip_graph.modules())
    with np.load(GOLDEN / "wav2lip.npz") as golden:
        sample = torch.from_numpy(golden["faces"][:1]), torch.from_numpy(golden["mel"][:1])
    assert (folded(*sample).int() - wav2lip_graph(*sample).int()).abs().max() <= 1


def maps_of_a_blank_image() -> tuple[Tensor, ...]:
    return tuple(torch.zeros(1, channels, 1, 1) for _ in face_detection.STRIDES for channels in (2, 4))


def with_tiny_variances(original: Wav2LipGraph) -> Wav2LipGraph:
    graph = copy.deepcopy(original)
    for module in graph.net.modules():
        if isinstance(module, nn.BatchNorm2d):
            # the inputs shrink by the same factor, so the network's outputs stay the same
            module.running_var.mul_(1e-8)  # type: ignore[union-attr]
            module.running_mean.mul_(1e-4)  # type: ignore[union-attr]
            module.eps = 1e-13
    for name, parameter in graph.net.named_parameters():
        if name.endswith((".0.weight", ".0.bias")):  # the convolution in front of a batch norm
            parameter.mul_(1e-4)
    return graph


def test_in_fp16_batch_norms_with_a_tiny_variance_still_work() -> None:
    torch.manual_seed(5)
    small = Wav2LipGraph(Generator()).eval()  # type: ignore[arg-type]
    face, mel = noise(2, 96, 96, 3), torch.zeros(2, 80, 16)
    graph = with_tiny_variances(small)
    whole, half = graph(face, mel).int(), to_half(graph)(face, mel).int()
    assert (whole - small(face, mel).int()).abs().max() <= 1
    assert (whole - half).abs().max() <= 4
    assert whole.float().std() > 5


@pytest.mark.slow  # FP16 is slow on a CPU
def test_in_fp16_the_whole_network_works_with_tiny_variances(wav2lip_graph: Wav2LipGraph) -> None:
    graph = with_tiny_variances(wav2lip_graph)
    with np.load(GOLDEN / "wav2lip.npz") as golden:
        inputs = (torch.from_numpy(golden["faces"][:1]), torch.from_numpy(golden["mel"][:1]))
    whole, half = graph(*inputs).int(), to_half(graph)(*inputs).int()
    assert (whole - half).abs().max() <= 4
    assert whole.float().std() > 5  # an image of a mouth, not a single gray level
