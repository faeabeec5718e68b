"""A share of the jobs uses other versions of some networks; the served configurations say which, and how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avatar.context import JobContext, RequestLogger
from avatar.inference.bls_client import BlsInferenceClient
from avatar.inference.protocol import ModelInfo, ServedModel, described_by
from avatar.options import Generator
from avatar.testing import FakeInference
from lipsync.tensors import WAV2LIP
from tests.avatar.inference.test_bls_client import Triton

NAMES = [model.name for model in described_by(WAV2LIP)]
TRIED = {"trial_version": "2", "trial_export": "new", "trial_checkpoint": "real"}
S3FD = {"export": "old", "checkpoint": "stand-in"}


def info(share: str = "0.25", **parameters: Mapping[str, str]) -> ModelInfo:
    """Return what servers say whose `s3fd` is tried, if no other parameters are given."""
    given: dict[str, Mapping[str, str]] = {"s3fd": {**S3FD, **TRIED}, "detect_faces": {"trial_share": share}}
    given |= parameters
    return ModelInfo.of(WAV2LIP, {name: ServedModel(given.get(name, {})) for name in NAMES})


def test_a_job_of_the_trial_gets_the_facts_of_its_versions() -> None:
    served = info("1")
    chosen = served.chosen("job")
    assert (served.detector, served.stand_ins, served.versions) == ("old", ("s3fd",), {})
    assert (chosen.detector, chosen.stand_ins, chosen.versions) == ("new", (), {"s3fd": "2"})
    assert chosen.trial is None


def test_the_share_of_the_jobs_is_that_of_the_configuration_and_one_job_stays_where_it_is() -> None:
    served = info("0.25")
    jobs = [f"job-{n}" for n in range(4000)]
    chosen = [served.chosen(job).versions for job in jobs]
    assert 900 < sum(map(bool, chosen)) < 1100
    assert [served.chosen(job).versions for job in jobs] == chosen
    more = info("0.5")
    assert all(more.chosen(job).versions for job, versions in zip(jobs, chosen, strict=True) if versions)


@pytest.mark.parametrize(
    "served",
    [
        info("0"),
        info("nonsense"),
        info(s3fd=S3FD),
        info(detect_faces={}),
        ModelInfo.shared([info(), info(s3fd=S3FD)]),
        ModelInfo.shared([info(), info("0.5")]),
        ModelInfo.shared([info(), info(s3fd={**S3FD, **TRIED, "trial_version": "4"})]),
    ],
)
def test_without_a_trial_that_all_servers_have_every_job_gets_the_active_versions(served: ModelInfo) -> None:
    assert served.trial is None
    assert not any(served.chosen(f"job-{n}").versions for n in range(100))


def test_servers_with_the_same_trial_share_it() -> None:
    assert ModelInfo.shared([info("1"), info("1")]).chosen("job").versions == {"s3fd": "2"}


def test_only_the_calls_of_a_job_of_the_trial_name_versions() -> None:
    models = FakeInference()
    job = JobContext(models, RequestLogger("job"))
    job.served_as(info("0").chosen("job"))
    assert models.versions == []
    job.served_as(info("1").chosen("job"))
    assert models.versions == [{"s3fd": "2"}]


class VersionedTriton(Triton):
    """Triton's module, which records the version of each call; only those in `served` are there."""

    def __init__(self) -> None:
        super().__init__()
        self.served = {-1, 2}
        self.versions: Counter[tuple[str, int]] = Counter()

    def InferenceRequest(self, **given: Any) -> Any:  # noqa: N802
        request = super().InferenceRequest(**given)
        execute = request.exec

        def run() -> Any:
            if given["model_version"] not in self.served:
                raise RuntimeError("no such version")
            self.versions[given["model_name"], given["model_version"]] += 1
            return execute()

        request.exec = run
        return request

    def get_output_tensor_by_name(self, response: Any, name: str) -> Any:
        shapes = {"boxes": (1, 1024, 4), "scores": (1, 1024)}
        if name in shapes:
            return SimpleNamespace(as_numpy=lambda: np.zeros(shapes[name], np.float32))
        return super().get_output_tensor_by_name(response, name)


IMAGE = np.zeros((4, 6, 3), np.uint8)


async def test_inside_triton_a_version_is_named_and_the_newest_answers_once_it_is_gone() -> None:
    triton = VersionedTriton()
    client = BlsInferenceClient(triton, Path(), 60)  # type: ignore[arg-type]
    await client.segment(IMAGE)
    assert triton.versions == {("segmentation", -1): 1}
    pinned = client.pinned({"segmentation": "2", "s3fd": "2"})
    await pinned.segment(IMAGE)
    await pinned.detect_faces(IMAGE[None])  # the ensemble would call the newest version
    assert triton.versions == {("segmentation", -1): 1, ("segmentation", 2): 1, ("s3fd", 2): 1, ("face_nms", -1): 1}
    triton.served = {-1}
    await pinned.segment(IMAGE)
    assert triton.versions["segmentation", -1] == 2


CONFIG = """name: "s3fd"
parameters { key: "export" value { string_value: "old" } }
parameters { key: "trial_version" value { string_value: "2" } }
parameters { key: "trial_export" value { string_value: "new" } }
"""


@pytest.mark.parametrize(("live", "versions"), [(False, {"s3fd": "2"}), (True, {})])
async def test_inside_triton_the_trial_is_that_of_the_files_but_not_for_live_sessions(
    tmp_path: Path, live: bool, versions: dict[str, str]
) -> None:
    write(tmp_path, "s3fd", CONFIG)
    write(tmp_path, "detect_faces", 'parameters { key: "trial_share" value { string_value: "1" } }\n')
    client = BlsInferenceClient(Triton(), tmp_path, live=live)  # type: ignore[arg-type]
    assert (await client.model_info(Generator.WAV2LIP)).chosen("job").versions == versions


async def test_what_a_file_says_that_triton_may_not_have_loaded_yet_names_nothing_in_the_cache(tmp_path: Path) -> None:
    write(tmp_path, "s3fd", CONFIG)
    client = BlsInferenceClient(Triton(), tmp_path)  # type: ignore[arg-type]
    assert (await client.model_info(Generator.WAV2LIP)).detector == "old"
    client._started -= 3600  # the file was written after that
    assert (await client.model_info(Generator.WAV2LIP)).detector == ""


def write(repository: Path, name: str, config: str) -> None:
    (repository / name).mkdir()
    (repository / name / "config.pbtxt").write_text(config)
