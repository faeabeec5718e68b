"""Who may import whom, as ARCHITECTURE.md draws it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"lipsync", "export", "embedded", "avatar", "gateway", "bench", "demo", "avatar_client"}
MAY_IMPORT = {
    "lipsync": set(),
    "export": {"lipsync"},
    "embedded": {"lipsync"},
    "avatar": {"lipsync"},
    "gateway": {"avatar", "lipsync"},
    "client": set(),
    "model_repository": {"lipsync"},
}
# the job's gRPC face: two models that are the whole job
ARE_THE_JOB = ("avatar", "live")
# outside systems that only one part may know
ONLY_IN = {
    "tritonclient": "avatar/inference/grpc_client.py",
    "pixellib": "avatar/background/pixellib.py",
    "subprocess": "avatar/media/ffmpeg.py",
}


def _imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        is_the_job = package == "model_repository" and file.parts[-3] in ARE_THE_JOB
        allowed = MAY_IMPORT[package] | ({"avatar"} if is_the_job else set())
        assert _imports(file) & (PACKAGES - {package}) <= allowed, file


@pytest.mark.parametrize("module", ONLY_IN)
def test_each_outside_system_of_the_job_lives_behind_one_file(module: str) -> None:
    for file in (*(ROOT / "avatar").rglob("*.py"), *(ROOT / "gateway").rglob("*.py")):
        if module in _imports(file):
            assert file == ROOT / ONLY_IN[module]


@pytest.mark.parametrize("package", ["avatar", "gateway"])
def test_the_web_process_knows_no_torch_and_no_tensorflow(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        assert not _imports(file) & {"torch", "tensorflow", "onnx", "onnxruntime"}, file


def test_a_triton_model_only_adapts() -> None:
    models = list((ROOT / "model_repository").glob("*/1/model.py"))
    assert models
    for model in models:
        assert len(model.read_text().splitlines()) <= 40, model
