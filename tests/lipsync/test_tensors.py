import numpy as np

from lipsync.tensors import MODELS, Tensor


def test_every_tensor_is_described() -> None:
    for model in MODELS:
        assert model.about
        for tensor in (*model.inputs, *model.outputs):
            assert tensor.about, f"{model.name}.{tensor.name}"


def test_names_are_unique_within_a_model_and_among_models() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)
    for model in MODELS:
        for side in (model.inputs, model.outputs):
            assert len({tensor.name for tensor in side}) == len(side)


def test_a_tensor_accepts_its_own_type_and_shape_only() -> None:
    face = Tensor("face", "UINT8", (-1, 96, 3), "")
    assert face.accepts(np.zeros((7, 96, 3), np.uint8))
    assert face.accepts(np.zeros((2, 7, 96, 3), np.uint8), batched=True)
    assert not face.accepts(np.zeros((7, 95, 3), np.uint8))
    assert not face.accepts(np.zeros((7, 96, 3), np.float32))
    assert not face.accepts(np.zeros((7, 96), np.uint8))
