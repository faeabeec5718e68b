"""How many cores a process may use, and how many threads a model gets: affinity, and quotas of both cgroup versions."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lipsync.triton.cpu import THREADS_VARIABLE, threads_per_model, usable_cores

AFFINITY = len(os.sched_getaffinity(0))
QUOTAS = [(100_000, 1), (150_000, 2), (1000, 1), (64_000_000, AFFINITY)]


def cgroup_v2(folder: Path, quota: object, period: int = 100_000) -> Path:
    (folder / "cpu.max").write_text(f"{quota} {period}\n")
    return folder


def cgroup_v1(folder: Path, quota: int, period: int = 100_000) -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu" / "cpu.cfs_period_us").write_text(f"{period}\n")
    return folder


@pytest.mark.parametrize("write", [cgroup_v1, cgroup_v2])
@pytest.mark.parametrize(("quota", "most"), QUOTAS)
def test_a_quota_limits_the_cores(write: Callable[[Path, int], Path], tmp_path: Path, quota: int, most: int) -> None:
    assert usable_cores(write(tmp_path, quota)) == min(most, AFFINITY)


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == AFFINITY
    assert usable_cores(cgroup_v1(tmp_path, -1)) == AFFINITY
    assert usable_cores(cgroup_v2(tmp_path, "max")) == AFFINITY
    (tmp_path / "cpu.max").write_text("")
    assert usable_cores(tmp_path) == AFFINITY


def test_a_quota_below_the_cores_sets_the_threads_of_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(THREADS_VARIABLE, raising=False)
    limited = cgroup_v2(tmp_path, 50_000)
    assert threads_per_model(limited) == (1 if AFFINITY > 1 else 0)
    assert threads_per_model(tmp_path / "none") == 0  # the runtime decides
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    assert threads_per_model(limited) == 3
