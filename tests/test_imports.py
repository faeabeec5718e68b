"""Import rules for files that are in no package, which import-linter cannot see. The other rules: pyproject.toml."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"lipsync", "export", "embedded", "avatar", "gateway", "bench", "demo", "avatar_client"}
MODELS = sorted((ROOT / "model_repository").glob("*/1/model.py"))
BACKENDS = sorted((ROOT / "embedded" / "backends").glob("*/model.py"))
# these two models run whole jobs
JOB_MODELS = ("avatar", "live")


def imports(file: Path) -> set[str]:
    """Return the full names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def packages(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(file)} & OURS


def test_there_are_models_and_backends() -> None:
    assert MODELS
    assert BACKENDS


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.parts[-3])
def test_a_model_imports_only_lipsync_or_the_code_of_the_job(model: Path) -> None:
    if model.parts[-3] in JOB_MODELS:
        assert packages(model) <= {"lipsync", "avatar"}
        assert {name for name in imports(model) if name.startswith("avatar")} <= {
            "avatar.serving.live_model",
            "avatar.serving.render_model",
        }
    else:
        assert packages(model) <= {"lipsync"}


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.parts[-3])
def test_a_model_is_a_short_adapter(model: Path) -> None:
    assert len(model.read_text().splitlines()) <= 40


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda path: path.parent.name)
def test_a_backend_imports_only_lipsync(backend: Path) -> None:
    assert packages(backend) <= {"lipsync"}
