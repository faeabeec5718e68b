"""What a repository serves, in its file `release.json`: the active exports, those before them, those that are tried.

Triton ignores files next to the models' folders.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lipsync import tensors

from ..errors import ExportError
from ..files import atomic_write
from ..triton_config import alternatives
from ..variants import Profile
from . import versions

RELEASE_FILE = "release.json"
EXPORTED = (tensors.S3FD, tensors.WAV2LIP, tensors.WAV2LIP_GAN, tensors.SEGMENTATION)
# every model that a repository may have, by name
KNOWN = {model.name: model for model in (*tensors.MODELS, *tensors.LIVE_NETWORKS.values())}


@dataclass(frozen=True)
class Release:
    """The exports of a repository, each by the name of its network.

    Attributes:
        profile: the kind of machine that the configurations are for.
        active: what every call gets that names no version.
        previous: what was active before; a rollback returns to it.
        trial: what a share of the jobs gets.
        share: of the jobs, from 0 to 1.
        withdrawn: exports that a rollback took away; `models` does not bring them back by itself.
    """

    profile: Profile = Profile.CPU
    active: Mapping[str, str] = field(default_factory=dict)
    previous: Mapping[str, str] = field(default_factory=dict)
    trial: Mapping[str, str] = field(default_factory=dict)
    share: float = 0.0
    withdrawn: tuple[str, ...] = ()

    @classmethod
    def read(cls, repository: Path) -> Release:
        """Return the release of a repository; of one without the file, what its folders show. Raises ExportError."""
        path = repository / RELEASE_FILE
        try:
            fields = json.loads(path.read_text("utf-8"))
            networks = {key: dict(fields[key]) for key in ("active", "previous", "trial")}
            return cls(
                Profile(fields["profile"]),
                share=float(fields["share"]),
                withdrawn=tuple(fields["withdrawn"]),
                **networks,
            )
        except FileNotFoundError:
            return cls(_profile(repository), newest_exports(repository))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ExportError(f"{path}: damaged; remove it: the newest versions are then the active ones") from error

    def write(self, repository: Path) -> None:
        """Write the file, if it would change."""
        path = repository / RELEASE_FILE
        text = json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"
        if not path.is_file() or path.read_text("utf-8") != text:
            with atomic_write(path) as temporary:
                temporary.write_text(text, "utf-8")

    def activated(self, exports: Mapping[str, str]) -> Release:
        """Return the release after these exports became active. The trial, if there was one, is over."""
        active = {**self.active, **exports}
        previous = self.active if self.active and active != self.active else self.previous
        withdrawn = tuple(name for name in self.withdrawn if name not in active.values())
        return replace(self, active=active, previous=previous, trial={}, share=0.0, withdrawn=withdrawn)

    def without(self, exports: Collection[str]) -> Release:
        """Return the release with these exports withdrawn. The trial, if there was one, is over."""
        return replace(self, trial={}, share=0.0, withdrawn=tuple(sorted({*self.withdrawn, *exports})))


def model_folders(repository: Path) -> list[Path]:
    """Return the folders of the models. Raises ExportError if there is none."""
    folders = sorted(path.parent for path in repository.glob(f"*/{alternatives.CONFIG_FILE}"))
    if not folders:
        raise ExportError(f"{repository}: no models here; build a model repository with `python -m export models`")
    return folders


def newest_exports(repository: Path) -> dict[str, str]:
    """Return the export of the newest version of each exported network."""
    found = {model.name: versions.list_versions(repository / model.name) for model in EXPORTED}
    return {name: each[-1].export for name, each in found.items() if each}


def _profile(repository: Path) -> Profile:
    config = repository / tensors.WAV2LIP.name / alternatives.CONFIG_FILE
    return Profile.GPU if config.is_file() and "KIND_GPU" in config.read_text("utf-8") else Profile.CPU
