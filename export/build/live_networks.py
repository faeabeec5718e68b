"""Serve a generator's file a second time, as a model of its own for `live` (docs/adr/0034)."""

from __future__ import annotations

import shutil
from pathlib import Path

from lipsync.tensors import LIVE_NETWORKS, Model

from . import versions
from .versions import Version


def follow(live: Model, newest: Version, repository: Path, staging: Path) -> Version:
    """Make the newest version of the model for `live` the export `newest` of its generator; return that version.

    The files are hard links, so they take no space.
    """
    served = versions.list_versions(repository / live.name)
    if not served or served[-1].export != newest.export or not served[-1].is_intact():
        staged = staging / live.name
        versions.link(newest, staged)
        versions.publish(staged, repository / live.name)
    return versions.list_versions(repository / live.name)[-1]


def remove(model: Model, repository: Path, staging: Path) -> bool:
    """Remove the model for `live` that an export with other options made; return whether there was one."""
    live = LIVE_NETWORKS.get(model.name)
    if live is None or not (repository / live.name).is_dir():
        return False
    removed = staging / f"{live.name}-removed"
    (repository / live.name).rename(removed)
    shutil.rmtree(removed)
    return True
