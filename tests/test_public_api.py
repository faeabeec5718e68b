"""The public names of each package, and the modules that importing it loads."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A name that is removed or renamed here breaks callers: keep the old one as an alias for a release.
EXPORTED = {
    "avatar": {
        "AvatarError",
        "AvatarRequest",
        "Background",
        "Busy",
        "Chunk",
        "ClientError",
        "Color",
        "Event",
        "FaceNotFound",
        "InvalidField",
        "Limits",
        "Options",
        "Progress",
        "RenderResult",
        "ShuttingDown",
        "TooLarge",
        "Unavailable",
        "render",
    },
    "avatar_client": {
        "AsyncAvatarJobs",
        "AvatarClient",
        "AvatarClientError",
        "AvatarJobs",
        "Cancelled",
        "Chunk",
        "Cleared",
        "Event",
        "File",
        "Frame",
        "InvalidRequest",
        "Job",
        "JobError",
        "JobEvent",
        "JobResult",
        "KeptFace",
        "LiveEvent",
        "LiveOptions",
        "LiveSession",
        "LiveSummary",
        "Progress",
        "RenderOptions",
        "RenderStream",
        "SegmentEnd",
        "ServerError",
        "SessionInfo",
        "Summary",
        "Unavailable",
        "Value",
    },
    "embedded": {"Triton"},
    "export": {"build_repository"},
    "gateway": {"create_app"},
    "lipsync": {"MODELS", "InvalidInput", "LipsyncError", "crop", "feather", "mel_spectrogram", "paste"},
}
FOLDERS = {name: ROOT / "client" / name if name == "avatar_client" else ROOT / name for name in EXPORTED}
# a module, and what it must not load
LIGHT = [
    ("avatar", {"cv2", "PIL", "tritonclient", "numpy"}),
    ("avatar.errors", {"cv2", "PIL", "tritonclient"}),
    ("avatar.inference", {"cv2", "PIL", "tritonclient"}),
    ("avatar.inference.protocol", {"cv2", "PIL", "tritonclient"}),
    ("avatar.inference.bls_client", {"tritonclient"}),
    ("embedded", {"numpy", "pytriton"}),
    ("export", {"torch", "tensorflow", "onnx", "onnxruntime", "openvino"}),
    ("gateway", {"cv2", "PIL", "fastapi", "tritonclient"}),
    ("lipsync", {"numpy", "cv2"}),
    ("lipsync.tensors", {"cv2"}),
]


def run(*code: str, isolated: bool = False) -> list[str]:
    """Run `code` in a Python of its own; return the lines that it prints. `isolated`: without installed packages."""
    command = [sys.executable, *(["-S"] if isolated else []), "-c", "\n".join(code)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("package", EXPORTED)
def test_a_package_exports_its_public_names(package: str) -> None:
    module = import_module(package)
    assert set(module.__all__) == EXPORTED[package]
    for name in EXPORTED[package]:
        value = getattr(module, name)
        assert not isinstance(value, type(sys)), f"{package}.{name} is a module"


@pytest.mark.parametrize("package", EXPORTED)
def test_importing_every_module_of_a_package_changes_no_public_name(package: str) -> None:
    module = import_module(package)
    before = {name: getattr(module, name) for name in EXPORTED[package]}
    for file in FOLDERS[package].rglob("*.py"):
        parts = file.relative_to(FOLDERS[package].parent).with_suffix("").parts
        if not {"__main__", "__init__", "backends"} & set(parts):
            import_module(".".join(parts))
    for name, value in before.items():
        assert getattr(module, name) is value


@pytest.mark.parametrize("package", EXPORTED)
def test_an_unknown_name_raises_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = import_module(package).nothing


@pytest.mark.parametrize("package", [*EXPORTED, "bench", "demo"])
def test_a_package_has_the_marker_of_typed_packages(package: str) -> None:
    assert (FOLDERS.get(package, ROOT / package) / "py.typed").is_file()


@pytest.mark.parametrize(("module", "heavy"), LIGHT, ids=[module for module, _ in LIGHT])
def test_an_import_loads_no_more_than_it_needs(module: str, heavy: set[str]) -> None:
    loaded = run("import sys", f"import {module}", "print(*{name.split('.')[0] for name in sys.modules})")
    assert not heavy & set(loaded)


@pytest.mark.parametrize("module", ["embedded.installation", "embedded.errors", "lipsync.triton.cpu"])
def test_setup_imports_these_before_any_package_is_installed(module: str) -> None:
    assert run("import sys", f"import {module}", "print('numpy' in sys.modules)", isolated=True) == ["False"]
