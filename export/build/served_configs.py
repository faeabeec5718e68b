"""Write the configurations of a repository: of the networks as they were exported, and of all other models."""

from __future__ import annotations

import shutil
from pathlib import Path

from lipsync import tensors, trial
from lipsync.tensors import Model

from ..files import atomic_write
from ..triton_config import alternatives, model_config
from ..variants import Format, Precision, Profile, Variant
from .release import EXPORTED
from .versions import Version

MODEL_VERSION = "1"  # the only version of the Python models and the ensembles


def write_network(
    model: Model, version: Version, repository: Path, profile: Profile, tried: Version | None = None
) -> None:
    """Write a network's configuration for its newest version, and for the one that is tried, if there is one.

    Both versions have one configuration, and so one format. A call that names no version gets the higher number.
    """
    record = version.record
    variant = Variant(Format(str(record["format"])), Precision(str(record["precision"])))
    parameters = {
        "checkpoint": str(record["weights"]),
        "checkpoint_sha256": str(record["checkpoint_sha256"]),
        "export": version.export,
        "precision": str(record["precision"]),
    }
    if variant.format is Format.TENSORRT:

        def render(format: Format) -> str:
            served = Variant(format, variant.precision)
            return model_config.render(model, parameters, variant=served, profile=profile)

        alternatives.write(repository / model.name, version.folder, render)
        return
    alternatives.remove(repository / model.name)
    served = () if tried is None else (tried.number, version.number)
    if tried is not None:
        parameters |= {
            trial.VERSION: str(tried.number),
            trial.EXPORT: tried.export,
            trial.CHECKPOINT: str(tried.record["weights"]),
        }
    model_config.write_one(model, repository, parameters, variant=variant, profile=profile, versions=served)


def write_share(repository: Path, profile: Profile, share: float) -> None:
    """Write the share of the jobs that use what is tried: into an ensemble, which Triton loads again in no time."""
    parameters = {trial.SHARE: f"{share:g}"} if share else {}
    model_config.write_one(tensors.DETECT_FACES, repository, parameters, profile=profile)


def copy_models(source: Path, repository: Path, profile: Profile, share: float) -> None:
    """Copy what is not exported: Python models, empty version folders of the ensembles, and the configs of both."""
    exported = {model.name for model in EXPORTED}
    for model in tensors.MODELS:
        if model.name in exported:
            continue
        (repository / model.name / MODEL_VERSION).mkdir(parents=True, exist_ok=True)
        for file in (source / model.name / MODEL_VERSION).glob("*.py"):
            copy = repository / model.name / MODEL_VERSION / file.name
            if not copy.is_file() or copy.read_bytes() != file.read_bytes():
                with atomic_write(copy) as temporary:
                    shutil.copyfile(file, temporary)
        if model is not tensors.DETECT_FACES:
            model_config.write_one(model, repository, profile=profile)
    write_share(repository, profile, share)
