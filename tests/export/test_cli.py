"""`python -m export`: most tests call its `main` in this process; a process is started only where one is needed."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.cli import COMMANDS, main
from export.commands import weights
from lipsync.tensors import MODELS

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path, root: Path = ROOT, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m export` of the checkout at `root` in the directory `cwd`."""
    start = f"import runpy, sys; sys.path.insert(0, {str(root)!r}); runpy.run_module('export', run_name='__main__')"
    command = [sys.executable, "-c", start, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files that the exporter needs, which a test may change."""
    root = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "model.onnx", "export.json", "report.json")
    for name in ("export", "lipsync", "model_repository", "samples"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    return root


def test_the_former_profile_tensorrt_is_answered_with_what_has_taken_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["models", "--weights", "w", "--repository", "r", "--profile", "tensorrt"])
    assert ended.value.code == 2
    assert "tensorrt is a format: use --profile gpu --format tensorrt" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--help",), *((command, "--help") for command in COMMANDS)])
def test_help_lists_the_exit_statuses(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "0 done, 1 failed, 2 wrong usage" in " ".join(capsys.readouterr().out.split())


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
        ("models", "--repository", "x", "--stand-ins", "a", "b"),
        ("stand-ins",),
        ("configs", "--chekc"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m export" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--accept-license", "--accept-licence"])
def test_the_license_flag_has_an_old_spelling(flag: str) -> None:
    parser = argparse.ArgumentParser()
    weights.add_arguments(parser)
    assert parser.parse_args([flag]).accept_license is True
    assert parser.parse_args([]).accept_license is False
    assert "licence" not in parser.format_help()


def test_missing_weights_fail_with_one_line_that_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["models", "--weights", str(tmp_path / "none"), "--repository", str(tmp_path / "repository")])
    assert status == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "none") in line
    for name in ("s3fd.pth", "wav2lip.pth", "wav2lip_gan.pth", "xception_pascalvoc.pb"):
        assert name in line
    assert not (tmp_path / "repository").exists()


def test_the_committed_configs_pass_the_check_from_any_directory(tmp_path: Path) -> None:
    done = run("configs", "--check", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_config_changed_by_hand_fails_the_check_until_it_is_generated_again(checkout: Path, tmp_path: Path) -> None:
    changed = checkout / "model_repository" / "s3fd" / "config.pbtxt"
    changed.write_text(changed.read_text().replace("max_batch_size: 4", "max_batch_size: 5"))

    checked = run("configs", "--check", root=checkout, cwd=tmp_path)
    assert checked.returncode == 1
    assert "-max_batch_size: 5" in checked.stdout.splitlines()
    assert "+max_batch_size: 4" in checked.stdout.splitlines()
    assert len(checked.stderr.splitlines()) == 1

    written = run("configs", root=checkout, cwd=tmp_path)
    assert (written.returncode, written.stdout) == (0, "wrote model_repository/s3fd/config.pbtxt\n")
    assert run("configs", "--check", root=checkout, cwd=tmp_path).returncode == 0
    assert changed.read_bytes() == (ROOT / "model_repository" / "s3fd" / "config.pbtxt").read_bytes()


@pytest.mark.parametrize("arguments", [("configs",), ("models", "--weights", "w", "--repository", "r")])
def test_a_copy_of_the_package_without_the_model_repository_fails_with_one_line(
    checkout: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    shutil.rmtree(checkout / "model_repository")
    done = run(*arguments, root=checkout, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{checkout / 'model_repository'} is missing" in line


def test_the_configs_of_the_projects_own_repository_are_not_changed(
    repository: Path, stand_in_weights: Path, checkout: Path, tmp_path: Path
) -> None:
    own = checkout / "model_repository"
    for exported in repository.glob("*/1/model.onnx"):
        folder = own / exported.relative_to(repository).parent
        folder.mkdir(exist_ok=True)
        for file in exported.parent.iterdir():
            os.link(file, folder / file.name)
    variant = ("--format", "onnx", "--precision", "fp32")
    done = run("models", "--weights", stand_in_weights, "--repository", own, *variant, root=checkout, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("up to date") == 4
    assert done.stdout.splitlines()[-1] == f"{own}: complete, {len(MODELS)} models"
    assert run("configs", "--check", root=checkout, cwd=tmp_path).returncode == 0


def test_existing_stand_ins_are_kept(stand_in_weights: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in stand_in_weights.glob("*.p*")}
    assert len(before) == 4
    assert main(["stand-ins", "--weights", str(stand_in_weights)]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in stand_in_weights.glob("*.p*")} == before


def test_stand_ins_never_replace_another_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s3fd.pth").write_bytes(b"other weights")
    assert main(["stand-ins", "--weights", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "s3fd.pth") in line
    assert (tmp_path / "s3fd.pth").read_bytes() == b"other weights"
    assert [path.name for path in tmp_path.iterdir()] == ["s3fd.pth"]


def test_ctrl_c_prints_one_line_and_exits_with_1(stand_in_weights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export", "models", "--weights", str(stand_in_weights), "--repository"]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background; child processes inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # like another export that writes there, so this one waits
    try:
        with subprocess.Popen(
            [*command, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            while "waiting for it to finish" not in running.stdout.readline():
                assert running.poll() is None
            running.send_signal(signal.SIGINT)
            assert running.communicate(timeout=60)[1] == "export: interrupted\n"
        assert running.returncode == 1
    finally:
        os.close(folder)


def test_options_that_cannot_be_combined_fail_with_one_line(
    stand_in_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--weights", str(stand_in_weights), "--repository", str(tmp_path / "repository")]
    assert main(["models", *folders, "--profile", "gpu", "--format", "openvino"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "openvino runs on CPUs only" in line
    assert not (tmp_path / "repository").exists()


def test_a_repository_is_listed_and_pruned(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--repository", str(repository), "--wide"]) == 0
    assert "wav2lip_gan.pth" in capsys.readouterr().out
    assert main(["prune", "--repository", str(repository), "--keep", "0"]) == 0
    assert capsys.readouterr() == ("", "")  # the repository has one version of each model
