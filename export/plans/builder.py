"""Bring the plans of a repository up to date: build, judge, put in place, prune."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lipsync.tensors import Model

from ..build import versions
from ..build.release import KNOWN
from ..build.versions import Version as ExportedVersion
from ..errors import ExportError
from ..files import ProgressCallback, exclusive_lock
from ..triton_config import alternatives
from ..triton_config.profiles import PLAN_PROFILES, PlanProfile
from ..validation import accuracy, stored_samples
from ..variants import Format, Precision
from . import trtexec_options
from .cache import PLAN_FILE, RECORD_FILE, CachedPlan, PlanCache, read, write_record
from .judge import judge
from .machine import Gpu
from .trtexec import Trtexec
from .trtexec_options import Version

# Free space that a build needs, in multiples of the ONNX file: the plan, its copy in the repository, and what TensorRT
# writes in between.
_SPACE_FACTOR = 4


@dataclass(frozen=True)
class PlannedNetwork:
    """A network that was exported for a plan.

    Attributes:
        folder: the model's folder.
        version: its newest version.
        model: its tensors.
    """

    folder: Path
    version: ExportedVersion
    model: Model

    @property
    def onnx(self) -> Path:
        """The file that the plan is built from."""
        return self.version.folder / Format.TENSORRT.exported_file

    @property
    def precision(self) -> Precision:
        """The precision of the export."""
        return Precision(str(self.version.record["precision"]))

    @property
    def profiles(self) -> Sequence[PlanProfile]:
        """The ranges of shapes that its plan is optimized for."""
        return PLAN_PROFILES[self.model.name]


class PlanBuilder:
    """Builds the plans of a repository.

    Args:
        repository: the model repository.
        cache: where plans are kept.
        gpu: the kind of this machine's GPUs.
        trtexec: the builder.
        on_progress: takes one line of progress at a time.
    """

    def __init__(
        self, repository: Path, cache: PlanCache, gpu: Gpu, trtexec: Trtexec, on_progress: ProgressCallback
    ) -> None:
        self._repository, self._cache, self._gpu, self._trtexec = repository, cache, gpu, trtexec
        self._on_progress = on_progress

    def bring_up_to_date(self) -> None:
        """Give every network that was exported for a plan one that fits this machine, and remove old plans.

        A plan is built only if there is none for this GPU, this TensorRT and this ONNX file. One that is not accurate
        enough is not put in place: its network is then served from its ONNX file.

        Raises:
            ExportError: the plans of some networks could not be built; the others are in place.
        """
        failures: dict[str, str] = {}  # by the plan's key
        missing = 0
        with exclusive_lock(self._repository, self._on_progress):
            networks = planned_networks(self._repository)
            keys = [self._key(network) for network in networks]
            for network, (key, inputs) in zip(networks, keys, strict=True):
                try:
                    self._update(network, key, inputs, failures.get(key))
                except ExportError as error:
                    missing += 1
                    failures.setdefault(key, str(error))
                    self._on_progress(str(error))
            for removed in self._cache.prune(self._gpu, self._trtexec.version, {key for key, _ in keys}):
                self._on_progress(f"removed the old plan {removed}")
        if failures:
            text = f"{missing} of {len(networks)} plans are missing; these networks are served from ONNX:"
            raise ExportError("\n".join([text, *failures.values()]))
        self._on_progress(f"{self._repository}: {len(networks)} plans for {self._gpu} are in place")

    def _update(self, network: PlannedNetwork, key: str, inputs: Mapping[str, object], failure: str | None) -> None:
        name, current = network.folder.name, read(network.version.folder)
        if current is not None and current.record.get("key") == key:
            alternatives.activate(network.folder, Format.TENSORRT)
            self._on_progress(f"{name}: the plan is up to date")
            return
        _withdraw(network)
        if failure is not None:
            raise ExportError(f"{name}: the same plan has just failed")
        cached = self._cache.find(key)
        if cached is None:
            cached = self._build(network, key, inputs)
        else:
            self._on_progress(f"{name}: using the plan {key} that was built before")
        _put_in_place(network, cached)

    def _build(self, network: PlannedNetwork, key: str, inputs: Mapping[str, object]) -> CachedPlan:
        name, started = network.folder.name, time.monotonic()
        self._on_progress(f"{name}: building a plan for {self._gpu}; this takes minutes")
        with self._cache.building(key) as folder:
            _check_space(folder, network)
            timing = self._cache.timing_cache(self._gpu, self._trtexec.version)
            plan = folder / PLAN_FILE
            self._trtexec.build(network.onnx, plan, timing, network.profiles, network.precision, name)
            built = time.monotonic() - started
            results = self._judge(network, plan, folder.parent)
            outcome = {"model": name, "seconds": round(built), "results": [asdict(result) for result in results]}
            write_record(folder, key, inputs, outcome)
        self._on_progress(f"{name}: built in {built:.0f} s, judged in {time.monotonic() - started - built:.0f} s")
        cached = self._cache.find(key)
        if cached is None:
            raise ExportError(f"{name}: the plan {key} is damaged on the disk; start this again")
        return cached

    def _judge(self, network: PlannedNetwork, plan: Path, folder: Path) -> Sequence[accuracy.Result]:
        references = stored_samples.load(network.model, network.version.folder / stored_samples.SAMPLES_FILE)
        results = judge(
            references,
            network.precision,
            network.profiles,
            lambda number: self._trtexec.load(network.model, plan, number, folder),
        )
        for result in results:
            score = "no face" if result.score is None else f"{result.score:.4g}"
            samples = f"{result.samples} ({result.weights} weights)"
            self._on_progress(f"{network.folder.name}: {samples}: {score}, at least {result.threshold:g}")
        accuracy.check_thresholds(network.model, f"a plan for {self._gpu}", results)
        return results

    def _key(self, network: PlannedNetwork) -> tuple[str, Mapping[str, object]]:
        """Return the name of a network's plan, and all that decides it, of which the name is a hash."""
        files = network.version.record.get("files")
        inputs: dict[str, object] = {
            "gpu": self._gpu.name,
            "compute_capability": self._gpu.compute_capability,
            "tensorrt": ".".join(map(str, self._trtexec.version)),
            "onnx": files.get(network.onnx.name) if isinstance(files, dict) else None,
            "options": build_options(network, Path(network.onnx.name), self._trtexec.version),
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16], inputs


def planned_networks(repository: Path) -> list[PlannedNetwork]:
    """Return the networks of a repository whose newest version was exported for a plan.

    Raises:
        ExportError: there is no such folder.
    """
    if not repository.is_dir():
        raise ExportError(f"{repository}: no such folder; build it with `python -m export models --format tensorrt`")
    found = []
    for folder in sorted(repository.iterdir()):
        exported = versions.list_versions(folder)
        if folder.name in KNOWN and exported and exported[-1].record.get("format") == Format.TENSORRT:
            found.append(PlannedNetwork(folder, exported[-1], KNOWN[folder.name]))
    return found


def build_options(network: PlannedNetwork, onnx: Path, version: Version) -> list[str]:
    """Return trtexec's options to build a network's plan from the file `onnx`, with plain names of the other files."""
    plan, timing = Path(PLAN_FILE), Path("timing.cache")
    return trtexec_options.build(onnx, plan, timing, network.profiles, network.precision, version)


def commands(repository: Path, program: Path, version: Version) -> list[str]:
    """Return a line for each plan of a repository: the network, and the command that builds it."""
    return [
        f"{network.folder.name}: {shlex.join([str(program), *build_options(network, network.onnx, version)])}"
        for network in planned_networks(repository)
    ]


def _put_in_place(network: PlannedNetwork, cached: CachedPlan) -> None:
    """Copy a plan with its record next to its ONNX file, each by a rename, and then serve it."""
    for source, name in ((cached.plan.with_name(RECORD_FILE), RECORD_FILE), (cached.plan, PLAN_FILE)):
        target = network.version.folder / name
        temporary = target.with_name(f"{name}.part")
        try:
            shutil.copyfile(source, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise ExportError(f"{target}: cannot be written: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)
    alternatives.activate(network.folder, Format.TENSORRT)


def _withdraw(network: PlannedNetwork) -> None:
    """Serve a network from its ONNX file, and remove a plan that does not fit."""
    alternatives.activate(network.folder, Format.ONNX)
    for name in (PLAN_FILE, RECORD_FILE):
        (network.version.folder / name).unlink(missing_ok=True)


def _check_space(folder: Path, network: PlannedNetwork) -> None:
    free, needed = shutil.disk_usage(folder).free, _SPACE_FACTOR * network.onnx.stat().st_size
    if free < needed:
        raise ExportError(
            f"{network.folder.name}: {free >> 20} MiB are free in {folder.parents[1]}, "
            f"but the build of its plan needs {needed >> 20} MiB"
        )
