import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipsync.tensors import API_VERSION, MODELS, Model, Tensor


def test_every_tensor_is_described() -> None:
    for model in MODELS:
        assert model.description
        for tensor in (*model.inputs, *model.outputs):
            assert tensor.description, f"{model.name}.{tensor.name}"


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


PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text())
# what was published under earlier versions with the same first number
EARLIER = [json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("published-*.json"))]


def described(model: Model) -> dict[str, Any]:
    """Return the properties of a model on which callers depend."""
    return {
        "max_batch_size": model.max_batch_size,
        "streams": model.streams,
        "sequences": model.sequences,
        "inputs": [[t.name, t.dtype, list(t.shape), "optional" if t.optional else "needed"] for t in model.inputs],
        "outputs": [[t.name, t.dtype, list(t.shape)] for t in model.outputs],
    }


def test_the_public_tensors_are_those_published_for_this_version() -> None:
    """If this fails, the interface for callers has changed.

    Increase the second number of `API_VERSION` for an optional addition, and the first one for a breaking change. Then
    copy tests/lipsync/published.json to published-VERSION.json, update it, and document the change in the changelog.
    """
    assert PUBLISHED["api_version"] == API_VERSION
    assert {model.name: described(model) for model in MODELS} == PUBLISHED["models"]


@pytest.mark.parametrize("earlier", EARLIER, ids=lambda earlier: earlier["api_version"])
def test_a_caller_of_an_earlier_version_finds_all_of_its_tensors(earlier: dict[str, Any]) -> None:
    assert earlier["api_version"].split(".")[0] == API_VERSION.split(".")[0]
    for name, model in earlier["models"].items():
        now = PUBLISHED["models"][name]
        for side in ("inputs", "outputs"):
            assert [tensor for tensor in model[side] if tensor not in now[side]] == []
        added = [tensor for tensor in now["inputs"] if tensor not in model["inputs"]]
        assert all(tensor[-1] == "optional" for tensor in added)
        assert {key: now[key] for key in model if key not in ("inputs", "outputs")} == {
            key: model[key] for key in model if key not in ("inputs", "outputs")
        }
