"""Try new exports with a share of the jobs, make them the active ones, and go back (docs/adr/0048)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lipsync import tensors
from lipsync.tensors import Model

from ..errors import ExportError
from ..files import ProgressCallback, exclusive_lock
from ..variants import Format, Profile
from . import live_networks, served_configs, versions
from .release import KNOWN, Release, newest_exports
from .staging import staging_folder
from .versions import Version

RUNNING = "a trial is running here: end it first, with `python -m export activate` or `rollback`"


def check_share(share: float) -> float:
    """Return a share of the jobs. Raises ExportError if it is none."""
    if not 0 <= share <= 1:
        raise ExportError(f"{share:g} is no share of the jobs: use a number from 0 to 1")
    return share


def check_format(model: Model, active: Version, tried: Version) -> None:
    """Raise ExportError if Triton cannot serve both versions: it has one configuration for all versions of a model."""
    formats = [Format(str(version.record["format"])) for version in (active, tried)]
    if Format.TENSORRT in formats:
        raise ExportError(
            f"{model.name}: a plan is built after its version is published, so it cannot be tried next to another "
            "version; try it on a Triton of its own"
        )
    if formats[0] is not formats[1]:
        raise ExportError(
            f"{model.name}: the active version is {formats[0]} and the new one {formats[1]}, and Triton serves all "
            f"versions of a model in one format; use --format {formats[0]}, or try it on a Triton of its own"
        )


def tried_version(model: Path, release: Release) -> Version | None:
    """Return the version of a model's folder that is tried, if there is one."""
    return next((each for each in versions.list_versions(model) if each.export == release.trial.get(model.name)), None)


def begin(
    repository: Path,
    release: Release,
    staged: Mapping[str, Path],
    share: float,
    staging: Path,
    on_progress: ProgressCallback = print,
) -> None:
    """Publish exports next to the active ones, and give them a share of the jobs.

    Args:
        repository: the repository, which this process has locked.
        release: what it serves.
        staged: a filled folder for each network, by its name.
        share: of the jobs.
        staging: a folder to prepare versions in.
        on_progress: takes one line of progress at a time.
    """
    tried = dict(release.trial)
    for name, folder in staged.items():
        tried[name] = versions.read_version(folder).export
        versions.publish_for_trial(folder, repository / name, staging)
    withdrawn = tuple(export for export in release.withdrawn if export not in tried.values())
    release = replace(release, trial=tried, share=share, withdrawn=withdrawn)
    for name in staged:
        newest = versions.list_versions(repository / name)[-1]
        version = tried_version(repository / name, release)
        served_configs.write_network(KNOWN[name], newest, repository, release.profile, version)
    release.write(repository)
    served_configs.write_share(repository, release.profile, share)
    on_progress(f"{', '.join(tried)}: tried with {share:.0%} of the jobs")


def set_share(repository: Path, share: float, on_progress: ProgressCallback = print) -> None:
    """Change the share of the jobs that use what is tried. Raises ExportError."""
    check_share(share)
    with _changing(repository, on_progress) as (release, _):
        if not release.trial:
            raise ExportError(f"{repository}: no trial is running; start one with `python -m export models --trial`")
        replace(release, share=share).write(repository)
        served_configs.write_share(repository, release.profile, share)
    on_progress(f"{', '.join(release.trial)}: tried with {share:.0%} of the jobs")


def activate(repository: Path, on_progress: ProgressCallback = print) -> None:
    """Make what is tried the active exports. Raises ExportError, and changes nothing then."""
    with _changing(repository, on_progress) as (release, staging):
        if not release.trial:
            raise ExportError(f"{repository}: no trial is running, so there is nothing to activate")
        found = _find(repository, release.trial)
        for name, version in found.items():
            _make_newest(repository, version, release.profile, staging)
            on_progress(f"{name}: export {version.export} is active")
        served_configs.write_share(repository, release.profile, 0.0)
        release.activated(release.trial).write(repository)  # last: after a crash the same command can be run again


def rollback(repository: Path, on_progress: ProgressCallback = print) -> None:
    """End the trial; without one, make the previous exports the active ones.

    A second rollback without a trial undoes the first. Raises ExportError, and changes nothing then.
    """
    with _changing(repository, on_progress) as (release, staging):
        if release.trial:
            _end_trial(repository, release)
            on_progress(f"{', '.join(release.trial)}: no longer tried; the active exports serve all jobs")
            return
        back = {name: export for name, export in release.previous.items() if release.active.get(name) != export}
        if not back:
            raise ExportError(f"{repository}: no earlier release is known, so there is nothing to return to")
        found = _find(repository, back)
        for name, version in found.items():
            _make_newest(repository, version, release.profile, staging)
            on_progress(f"{name}: back at export {version.export}")
        release.activated(back).without([release.active[name] for name in back]).write(repository)


def _end_trial(repository: Path, release: Release) -> None:
    served_configs.write_share(repository, release.profile, 0.0)  # first: no further job starts with what is tried
    for name in release.trial:
        newest = versions.list_versions(repository / name)[-1]
        served_configs.write_network(KNOWN[name], newest, repository, release.profile)
    release.without(release.trial.values()).write(repository)


def _make_newest(repository: Path, version: Version, profile: Profile, staging: Path) -> None:
    """Publish a version once more, under the highest number: calls that name no version get it."""
    model = KNOWN[version.folder.parent.name]
    staged = staging / model.name
    versions.link(version, staged)
    versions.publish(staged, repository / model.name)
    newest = versions.list_versions(repository / model.name)[-1]
    served_configs.write_network(model, newest, repository, profile)
    versions.remove_duplicates(repository / model.name, staging)
    live = tensors.LIVE_NETWORKS.get(model.name)
    if live is not None and (repository / live.name).is_dir():
        followed = live_networks.follow(live, newest, repository, staging)
        served_configs.write_network(live, followed, repository, profile)


def _find(repository: Path, exports: Mapping[str, str]) -> dict[str, Version]:
    """Return the newest intact version of each export, by the name of its network."""
    found = {}
    for name, export in exports.items():
        same = [each for each in versions.list_versions(repository / name) if each.export == export]
        if not same or not same[-1].is_intact():
            raise ExportError(f"{repository / name}: export {export} is gone or damaged; export it again")
        found[name] = same[-1]
    return found


@contextmanager
def _changing(repository: Path, on_progress: ProgressCallback) -> Iterator[tuple[Release, Path]]:
    """Yield the release and a folder to prepare versions in, while no other process changes the repository."""
    if not repository.is_dir() or not newest_exports(repository):
        raise ExportError(f"{repository}: no exported networks here; build it with `python -m export models`")
    with exclusive_lock(repository, on_progress), staging_folder(repository) as staging:
        yield Release.read(repository), staging
