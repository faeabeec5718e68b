"""The client is independent of the service: its imports, its Python version, and its copy of the table."""

from __future__ import annotations

import ast
import pickle
import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import avatar_client
from avatar_client import _errors, _models, _options, _schema
from avatar_client._shared_memory import PREFIX
from lipsync import limits, tensors
from tests.client.fake_server import FakeServer

CLIENT = Path(__file__).parents[2] / "client"
FILES = sorted(CLIENT.rglob("*.py"))
EXTRAS = {"_preview_picture.py": {"cv2"}}  # imported by the command that needs it, if it is installed
OUTSIDE = {"_typeshed", "grpc", "numpy", "tritonclient", "typing_extensions"}  # first and last: type checkers only


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_is_valid_python_3_10_and_imports_nothing_of_the_project(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 10))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.split(".")[0])
    assert imported <= OUTSIDE | EXTRAS.get(file.name, set()) | set(sys.stdlib_module_names)


def test_typing_extensions_is_imported_for_type_checkers_only() -> None:
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            assert not (isinstance(node, ast.ImportFrom) and node.module == "typing_extensions"), file


def test_all_files_are_installed() -> None:
    assert {file.parent for file in FILES} == {CLIENT / "avatar_client"}
    assert (CLIENT / "avatar_client" / "py.typed").exists()


CLIENT_MODELS = [
    _schema.DETECT_FACES,
    _schema.MEL_SPECTROGRAM,
    _schema.FACE_PASTE,
    _schema.AVATAR,
    _schema.LIVE,
    *_schema.LIPSYNC.values(),
]


@pytest.mark.parametrize("model", CLIENT_MODELS, ids=lambda model: model.name)
def test_a_model_has_the_tensors_of_the_services_table(model: _schema.Model) -> None:
    (service_model,) = [each for each in tensors.MODELS if each.name == model.name]
    for client_table, table in ((model.inputs, service_model.inputs), (model.outputs, service_model.outputs)):
        assert dict(client_table) == {tensor.name: tensor.dtype for tensor in table}
    if not service_model.streams:  # single models send and read their tensors in order
        assert list(model.inputs) == [tensor.name for tensor in service_model.inputs]
        assert list(model.outputs) == [tensor.name for tensor in service_model.outputs]


def test_limits_and_types_equal_those_of_the_service() -> None:
    assert _schema.API_VERSION.split(".")[0] == tensors.API_VERSION.split(".")[0]
    assert (_schema.FACE_SIZE, _schema.FACES) == (tensors.FACE_SIZE, tensors.FACES)
    assert (_schema.MEL_BANDS, _schema.WINDOW_COLUMNS) == (tensors.MEL_BANDS, tensors.WINDOW_COLUMNS)
    assert (_schema.MAX_FRAMES, _schema.MAX_WINDOWS) == (tensors.S3FD_BATCH, tensors.WAV2LIP_BATCH)
    assert tensors.LIVE_SAMPLE_RATES == _schema.LIVE_SAMPLE_RATES
    assert _models.MAX_ANSWER_BYTES == limits.MAX_ANSWER_BYTES
    (audio,) = [tensor for tensor in tensors.LIVE.inputs if tensor.name == "audio"]
    assert f" {_schema.MIN_SAMPLES} samples" in audio.description
    for name, kind in _schema.NUMPY.items():
        assert tensors.Tensor("", name, (), "").numpy is kind  # type: ignore[arg-type]


def test_options_equal_those_of_the_form() -> None:
    shared = {tensors.FACE_TYPE, tensors.BACKGROUND, tensors.BACKGROUND_FILE}
    assert shared | set(tensors.OPTIONS) == _options.RENDER_NAMES
    assert shared | {"format"} | (set(tensors.OPTIONS) - tensors.NOT_LIVE) == _options.LIVE_NAMES


def test_region_names_differ_from_those_of_the_gateway() -> None:
    from avatar.inference import shared_memory

    assert not PREFIX.startswith(shared_memory.PREFIX) and not shared_memory.PREFIX.startswith(PREFIX)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("White", "White"),
        (True, "true"),
        (False, "false"),
        (np.bool_(True), "true"),
        (3, "3"),
        (np.int64(3), "3"),
        (25.0, "25"),
        (29.97, "29.97"),
        (np.float32(0.5), "0.5"),
        (Fraction(30000, 1001), "30000/1001"),
        ((0, 20, 0, 0), "0,20,0,0"),
        ([0, -1, 0, np.int32(-1)], "0,-1,0,-1"),
    ],
)
def test_a_value_is_converted_to_the_text_of_the_form(value: object, text: str) -> None:
    assert _options.text("name", value) == text


@pytest.mark.parametrize("value", [None, b"White", object(), (1.5, 2), {"a": 1}])
def test_a_value_of_another_type_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="name: str, int"):
        _options.text("name", value)


EXAMPLES = re.findall(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(
    number: int, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("face.jpg", "speech.wav"):
        Path(name).write_bytes(b"any content " * 100)
    assert "127.0.0.1:8001" in EXAMPLES[number]
    exec(EXAMPLES[number].replace("127.0.0.1:8001", server.address), {})  # noqa: S102
    assert server.requests


def test_errors_can_be_pickled() -> None:
    for error in (
        _errors.InvalidRequest("no", 413),
        _errors.Unavailable("later", retry_after=7),
        _errors.ServerError("oh"),
    ):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(again), again.message, again.__dict__) == (type(error), error.message, error.__dict__)


def test_every_public_name_exists_and_the_list_is_sorted() -> None:
    assert sorted(avatar_client.__all__) == avatar_client.__all__
    assert all(hasattr(avatar_client, name) for name in avatar_client.__all__)
