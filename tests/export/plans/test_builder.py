"""Plans are built once, judged, put in place, and replaced when the machine or the network changes.

`trtexec` is a substitute whose plans return what the references say: everything but the build and its numbers is real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from export.build import listing
from export.cli import main
from export.errors import ExportError
from export.plans.builder import PlanBuilder
from export.plans.cache import open_cache
from export.plans.machine import Gpu
from export.plans.trtexec import Trtexec
from lipsync import tensors
from lipsync.tensors import S3FD, WAV2LIP
from tests.support import network_without_plan
from tests.support.fake_trtexec import Behavior, FakeTrtexec, write_nvidia_smi

ROOT = Path(__file__).parents[3]
H100, L4 = Gpu("NVIDIA H100 80GB HBM3", "9.0"), Gpu("NVIDIA L4", "8.9")
LIVE = tensors.LIVE_NETWORKS[WAV2LIP.name]
CONFIGS = {"onnx": 'backend: "onnxruntime"', "tensorrt": 'backend: "tensorrt"'}


@pytest.fixture
def fake(tmp_path: Path) -> FakeTrtexec:
    return FakeTrtexec(tmp_path / "bin")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A network as `export models --format tensorrt` leaves it, and the same for `live`."""
    folder = tmp_path / "models"
    for model in (WAV2LIP, LIVE):
        network_without_plan.write(model, b"the network", folder)
    return folder


Build = Callable[..., list[str]]


@pytest.fixture
def build(repository: Path, fake: FakeTrtexec, tmp_path: Path) -> Build:
    """Return a function that brings the plans up to date, and returns the lines of progress."""

    def run(gpu: Gpu = H100, timeout: float = 60) -> list[str]:
        lines: list[str] = []
        with open_cache(tmp_path / "cache", lines.append) as cache:
            tool = Trtexec(fake.program, lines.append, timeout)
            PlanBuilder(repository, cache, gpu, tool, lines.append).bring_up_to_date()
        return lines

    return run


def served(repository: Path, name: str) -> str:
    text = (repository / name / "config.pbtxt").read_text()
    (kind,) = (kind for kind, line in CONFIGS.items() if line in text)
    return kind


def test_until_a_plan_is_built_a_network_is_served_from_its_onnx_file(repository: Path) -> None:
    assert served(repository, "wav2lip") == "onnx"
    assert "tensorrt fp16, onnx until its plan is built" in listing.table(repository)


def test_plans_are_built_judged_in_every_profile_and_served(repository: Path, fake: FakeTrtexec, build: Build) -> None:
    network_without_plan.write(S3FD, b"the detector", repository)
    lines = build()
    for name in ("s3fd", "wav2lip", "wav2lip_live"):
        assert served(repository, name) == "tensorrt"
        assert (repository / name / "1" / "model.plan").stat().st_size
    record = json.loads((repository / "wav2lip" / "1" / "plan.json").read_text())
    assert record["inputs"]["gpu"] == H100.name
    assert record["inputs"]["tensorrt"] == "11.1.0"
    assert [result["samples"] for result in record["results"]] == [f"crops in profile {n}" for n in range(3)]
    assert [result["count"] for result in record["results"]] == [1, 17, 65]  # the smallest batch of each profile
    assert len(fake.builds()) == 2  # the network for `live` is the same file, so it has the same plan
    assert lines[-1].endswith("3 plans for NVIDIA H100 80GB HBM3 (compute capability 9.0) are in place")
    assert not list(repository.rglob("*.part"))
    assert "until its plan is built" not in listing.table(repository)


def test_a_second_start_builds_nothing(fake: FakeTrtexec, build: Build) -> None:
    build()
    lines = build()
    assert len(fake.builds()) == 1
    assert [line for line in lines if line.endswith("the plan is up to date")] != []


def test_another_gpu_has_a_plan_of_its_own_and_each_keeps_its_plan(fake: FakeTrtexec, build: Build) -> None:
    build()
    build(L4)
    assert len(fake.builds()) == 2
    lines = build()
    assert len(fake.builds()) == 2
    assert "wav2lip: using the plan" in "\n".join(lines)


def test_another_tensorrt_replaces_the_plans_of_the_old_one(fake: FakeTrtexec, build: Build, tmp_path: Path) -> None:
    build()
    fake.behave(Behavior(version=101303))
    lines = build()
    assert len(fake.builds()) == 2
    assert "--stronglyTyped" in fake.builds()[-1]
    assert len([line for line in lines if line.startswith("removed the old plan")]) == 1
    (timing,) = (tmp_path / "cache").glob("*.cache")
    assert timing.name == "timing-NVIDIA-H100-80GB-HBM3-10.13.3.cache"


def test_another_network_has_another_plan(repository: Path, fake: FakeTrtexec, build: Build) -> None:
    build()
    version = network_without_plan.write(WAV2LIP, b"another network", repository, 2)
    assert served(repository, "wav2lip") == "onnx"
    build()
    assert len(fake.builds()) == 2
    assert (version / "model.plan").read_bytes() == b"another network"
    assert served(repository, "wav2lip") == "tensorrt"


def test_a_damaged_plan_is_put_in_place_again(repository: Path, fake: FakeTrtexec, build: Build) -> None:
    build()
    plan = repository / "wav2lip" / "1" / "model.plan"
    whole = plan.read_bytes()
    plan.write_bytes(whole[:3])
    build()
    assert plan.read_bytes() == whole
    assert len(fake.builds()) == 1


@pytest.mark.parametrize("profile", [None, 2], ids=["everywhere", "in the profile of large batches"])
def test_an_inaccurate_plan_is_not_put_in_place(
    repository: Path, fake: FakeTrtexec, build: Build, profile: int | None
) -> None:
    network_without_plan.write(S3FD, b"the detector", repository)
    fake.behave(Behavior(darker=9, bad_profile=profile))
    with pytest.raises(ExportError, match=r"2 of 3 plans are missing; these networks are served from ONNX") as raised:
        build()
    assert "wav2lip as a plan for NVIDIA H100" in str(raised.value)
    assert "crops in profile 2 (real weights) reach" in str(raised.value)
    assert served(repository, "wav2lip") == served(repository, "wav2lip_live") == "onnx"
    assert not (repository / "wav2lip" / "1" / "model.plan").exists()
    assert served(repository, "s3fd") == "tensorrt"  # the others are served by theirs
    assert len(fake.builds()) == 2  # the same file is not tried twice


def test_a_plan_of_another_gpu_is_withdrawn_when_its_successor_cannot_be_built(
    repository: Path, fake: FakeTrtexec, build: Build
) -> None:
    build()
    fake.behave(Behavior(fails="Could not find any implementation for node /net/conv1_1/Conv"))
    with pytest.raises(ExportError, match=r"failed with status 1; its last lines:\n.*\n    \[E\] Could not find any"):
        build(L4)
    assert served(repository, "wav2lip") == "onnx"
    assert not (repository / "wav2lip" / "1" / "model.plan").exists()
    fake.behave(Behavior())
    build(L4)
    assert served(repository, "wav2lip") == "tensorrt"


def test_a_build_that_takes_too_long_or_writes_nothing_fails(fake: FakeTrtexec, build: Build, tmp_path: Path) -> None:
    fake.behave(Behavior(sleeps=600))
    with pytest.raises(ExportError, match=r"wav2lip: .*trtexec did not end within 0\.3 s and was killed"):
        build(timeout=0.3)
    fake.behave(Behavior(writes_nothing=True))
    with pytest.raises(ExportError, match="ended without an error, but wrote no plan"):
        build()
    assert not list((tmp_path / "cache").glob(".building-*"))


def test_without_space_on_the_disk_the_build_does_not_start(repository: Path, fake: FakeTrtexec, build: Build) -> None:
    os.truncate(repository / "wav2lip" / "1" / "model.onnx", 1 << 42)
    with pytest.raises(
        ExportError, match=r"wav2lip: \d+ MiB are free in .*cache, but the build of its plan needs 16777216"
    ):
        build()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ExportError, match="file/cache: cannot be written: Not a directory; give --cache"),
        open_cache(tmp_path / "file" / "cache", print),
    ):
        pass


@pytest.mark.parametrize(
    ("number", "reason"), [(80600, "TensorRT 80600, but at least 10.0.0 is needed"), (0, "at least 10.0.0")]
)
def test_an_old_tensorrt_is_rejected(fake: FakeTrtexec, number: int, reason: str) -> None:
    fake.behave(Behavior(version=number))
    with pytest.raises(ExportError, match=reason):
        Trtexec(fake.program)


def test_a_missing_or_foreign_trtexec_is_an_error_that_says_where_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No such file or directory; run this in NVIDIA's Triton image"):
        Trtexec(tmp_path / "trtexec")
    with pytest.raises(ExportError, match="does not say its version of TensorRT"):
        Trtexec(Path("/bin/true"))


def test_the_command_does_it_all(
    repository: Path,
    fake: FakeTrtexec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_nvidia_smi(fake.program.with_name("nvidia-smi"), "NVIDIA H100 80GB HBM3, 9.0")
    monkeypatch.setenv("PATH", str(fake.program.parent), prepend=os.pathsep)
    arguments = ["plans", "--repository", repository, "--cache", tmp_path / "cache", "--trtexec", fake.program]
    assert main([*map(str, arguments)]) == 0
    assert served(repository, "wav2lip") == "tensorrt"
    fake.behave(Behavior(version=101303, fails="out of memory"))
    assert main([*map(str, arguments)]) == 1
    assert "out of memory" in capsys.readouterr().err


def test_without_a_network_for_a_plan_there_is_nothing_to_do_and_no_gpu_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plans", "--repository", str(tmp_path)]) == 0
    assert "no network was exported with --format tensorrt" in capsys.readouterr().out


BARE = """\
import sys
for name in ("torch", "onnx", "onnxruntime", "openvino", "tritonclient", "google.protobuf", "grpc", "tabulate"):
    sys.modules[name] = None  # a module that cannot be imported
import export.plans.builder
from export.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_dry_run_prints_the_commands_with_what_the_triton_image_has(repository: Path, tmp_path: Path) -> None:
    arguments = ["plans", "--dry-run", "--repository", str(repository), "--trtexec", str(tmp_path / "trtexec")]
    done = subprocess.run([sys.executable, "-c", BARE, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["wav2lip", "wav2lip_live"]
    assert f"trtexec --onnx={repository}/wav2lip/1/model.onnx --saveEngine=model.plan" in lines[0]
    assert list(repository.rglob("model.plan")) == []
