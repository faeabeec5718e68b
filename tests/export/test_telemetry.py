"""No runtime reports its use over the network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BACKEND = """
import sys, types
sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
exec(open("embedded/backends/openvino/model.py").read())
"""
EXPORTER = "import export.validation.runtimes, export.formats.openvino_ir, nncf, onnxruntime"


@pytest.mark.parametrize("code", [BACKEND, EXPORTER], ids=["openvino backend", "exporter"])
def test_the_runtimes_are_imported_without_their_telemetry(code: str, tmp_path: Path) -> None:
    # each of them writes an identity into the home folder before it reports anything
    code += "\nimport sys\nassert sys.modules.get('openvino_telemetry') is None"
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "NNCF_CI")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [name for name in left if "intel" in name or "telemetry" in name or "onnxruntime" in name]
