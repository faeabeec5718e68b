from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lipsync.tensors import MODELS

ROOT = Path(__file__).parents[2]
COMMANDS = ("weights", "stand-ins", "models", "list", "prune", "configs")


def export(*arguments: str | Path, root: Path = ROOT, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m export` of the checkout at `root` in the directory `cwd`."""
    start = f"import runpy, sys; sys.path.insert(0, {str(root)!r}); runpy.run_module('export', run_name='__main__')"
    command = [sys.executable, "-c", start, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd or root, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the exporter needs of the project, free to be changed."""
    root = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "model.onnx", "export.json", "report.json")
    for name in ("export", "lipsync", "model_repository", "samples"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    return root


@pytest.mark.parametrize("arguments", [("--help",), *((command, "--help") for command in COMMANDS)])
def test_help_tells_what_the_exit_status_means(arguments: tuple[str, ...]) -> None:
    done = export(*arguments)
    assert done.returncode == 0
    assert "0 done, 1 failed, 2 wrong usage" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("unknown",),
        ("models",),
        ("models", "--weights", "w"),
        ("models", "--weights", "w", "--repository", "r", "--format", "tflite"),
        ("models", "--weights", "w", "--repository", "r", "--keep", "-1"),
        ("list",),
        ("stand-ins",),
        ("configs", "--chekc"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    done = export(*arguments)
    assert done.returncode == 2
    assert "usage: python -m export" in done.stderr


def test_missing_weights_fail_with_one_line_that_names_them(tmp_path: Path) -> None:
    done = export("models", "--weights", tmp_path / "none", "--repository", tmp_path / "repository")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(tmp_path / "none") in line
    for name in ("s3fd.pth", "wav2lip.pth", "wav2lip_gan.pth", "xception_pascalvoc.pb"):
        assert name in line
    assert not (tmp_path / "repository").exists()


def test_the_committed_configs_pass_the_check_from_any_directory(tmp_path: Path) -> None:
    done = export("configs", "--check", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_config_changed_by_hand_fails_the_check_until_it_is_written_again(checkout: Path, tmp_path: Path) -> None:
    changed = checkout / "model_repository" / "s3fd" / "config.pbtxt"
    changed.write_text(changed.read_text().replace("max_batch_size: 4", "max_batch_size: 5"))

    checked = export("configs", "--check", root=checkout, cwd=tmp_path)
    assert checked.returncode == 1
    assert "-max_batch_size: 5" in checked.stdout.splitlines()
    assert "+max_batch_size: 4" in checked.stdout.splitlines()
    assert len(checked.stderr.splitlines()) == 1

    written = export("configs", root=checkout, cwd=tmp_path)
    assert (written.returncode, written.stdout) == (0, "wrote model_repository/s3fd/config.pbtxt\n")
    assert export("configs", "--check", root=checkout, cwd=tmp_path).returncode == 0
    assert changed.read_bytes() == (ROOT / "model_repository" / "s3fd" / "config.pbtxt").read_bytes()


@pytest.mark.parametrize("arguments", [("configs",), ("models", "--weights", "w", "--repository", "r")])
def test_a_copy_of_the_package_without_the_model_repository_says_so(
    checkout: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    shutil.rmtree(checkout / "model_repository")
    done = export(*arguments, root=checkout, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{checkout / 'model_repository'} is missing" in line


def test_the_projects_own_repository_keeps_its_committed_configs(
    repository: Path, stand_in_weights: Path, checkout: Path, tmp_path: Path
) -> None:
    own = checkout / "model_repository"
    for exported in repository.glob("*/1/model.onnx"):
        folder = own / exported.relative_to(repository).parent
        folder.mkdir(exist_ok=True)
        for file in exported.parent.iterdir():
            os.link(file, folder / file.name)
    variant = ("--format", "onnx", "--precision", "fp32")
    done = export("models", "--weights", stand_in_weights, "--repository", own, *variant, root=checkout, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("up to date") == 4
    assert done.stdout.splitlines()[-1] == f"{own}: complete, {len(MODELS)} models"
    assert export("configs", "--check", root=checkout, cwd=tmp_path).returncode == 0


def test_stand_ins_that_are_there_are_kept(stand_in_weights: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in stand_in_weights.glob("*.p*")}
    assert len(before) == 4
    assert export("stand-ins", "--weights", stand_in_weights).returncode == 0
    assert {path.name: path.stat().st_mtime_ns for path in stand_in_weights.glob("*.p*")} == before


def test_stand_ins_never_take_the_place_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "s3fd.pth").write_bytes(b"somebody's weights")
    done = export("stand-ins", "--weights", tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(tmp_path / "s3fd.pth") in line
    assert (tmp_path / "s3fd.pth").read_bytes() == b"somebody's weights"
    assert [path.name for path in tmp_path.iterdir()] == ["s3fd.pth"]


def test_ctrl_c_ends_with_one_line_and_1(stand_in_weights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export", "models", "--weights", str(stand_in_weights), "--repository"]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # the tests run in a shell's background; children inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # as another export that is writing there: so it waits
    try:
        with subprocess.Popen(
            [*command, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            while "waiting for it" not in running.stdout.readline():
                assert running.poll() is None
            running.send_signal(signal.SIGINT)
            assert running.communicate(timeout=60)[1] == "export: interrupted\n"
        assert running.returncode == 1
    finally:
        os.close(folder)


def test_what_does_not_go_together_fails_with_one_line(stand_in_weights: Path, tmp_path: Path) -> None:
    wrong = ("--profile", "gpu", "--format", "openvino")
    done = export("models", "--weights", stand_in_weights, "--repository", tmp_path / "repository", *wrong)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "openvino runs on CPUs only" in line
    assert not (tmp_path / "repository").exists()


def test_a_repository_is_listed_and_pruned(repository: Path) -> None:
    listed = export("list", "--repository", repository)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "wav2lip_gan.pth" in listed.stdout
    pruned = export("prune", "--repository", repository, "--keep", "0")
    assert (pruned.returncode, pruned.stdout, pruned.stderr) == (0, "", "")  # it holds one version of each
