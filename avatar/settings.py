"""The settings of the job, whichever face it has: read once, validated, frozen. Nothing else reads the environment."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from .limits import Limits

PREFIX = "AVATAR_"
MIB = 1024 * 1024


class BadSetting(ValueError):
    """One or more settings do not do; the message is one line that names each by its variable."""


def _writable_folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError("there is no such folder")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError("the folder cannot be written to")
    return path.resolve()


def _cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    # Affinity knows nothing of a container's quota: with `--cpus 2` it still shows all of the machine.
    cores = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text().split()
        return max(1, min(cores, math.ceil(int(limit) / int(period))))
    except (OSError, ValueError):  # there is no quota: no such file, or it says "max"
        return cores


def _jobs_at_once() -> int:
    # A job waits for Triton most of its time, and two at once already let frames of different forms
    # share a batch; beyond the cores, more jobs only make each other slower.
    return max(2, _cores())


class JobSettings(BaseSettings):
    """What every face of the job is told: arguments first, then `AVATAR_…` variables, then the defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    work_dir: Annotated[Path, AfterValidator(_writable_folder)] = Field(
        default_factory=lambda: Path(tempfile.gettempdir()),
        description="Existing folder for the requests' temporary files.",
        json_schema_extra={"shown": "the system's temporary folder"},
    )
    cache_mib: int = Field(
        512,
        ge=0,
        description="Most that is kept of avatars seen before (where their faces are, how they look before another "
        "background), in MiB on disk, a quarter of it in memory too; 0 keeps nothing.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / f"talking-avatar-cache-{os.geteuid()}",
        description="Folder for it, shared by all processes of a machine; made if it is missing, for its owner alone.",
        json_schema_extra={"shown": "`talking-avatar-cache-UID` in the system's temporary folder"},
    )
    max_upload_bytes: int = Field(512 * MIB, ge=1, description="Largest accepted file, in bytes, for each of them.")
    max_megapixels: float = Field(100, gt=0, le=178, description="Largest accepted picture or video frame.")
    work_megapixels: float = Field(
        8.3,
        ge=0.1,
        le=100,
        description="Larger pictures and video frames are scaled down to this; 8.3 is 3840x2160. The face detector "
        "takes 0.5 GB of memory for each.",
    )
    max_speech_seconds: int = Field(3600, ge=1, le=86400, description="Longest accepted speech.")
    max_frames: int = Field(216_000, ge=1, le=2_000_000, description="Most frames of a result: its length x its rate.")
    max_fps: int = Field(240, ge=1, le=1000, description="Highest accepted frame rate of a video.")
    max_jobs: int = Field(
        default_factory=_jobs_at_once,
        ge=1,
        description="Jobs that run at once; the others wait in order.",
        json_schema_extra={"shown": "the number of cores, at least 2"},
    )
    max_waiting: int = Field(32, ge=0, description="Requests that may wait; one more is answered 503.")

    @property
    def limits(self) -> Limits:
        """What the job refuses as too much."""
        return Limits(
            max_pixels=int(self.max_megapixels * 1e6),
            max_work_pixels=int(self.work_megapixels * 1e6),
            max_audio_seconds=self.max_speech_seconds,
            max_frames=self.max_frames,
            max_fps=self.max_fps,
        )


class LiveSettings(JobSettings):
    """What the model `live` is told beyond that."""

    live_sessions: int = Field(
        default_factory=lambda: 2 * _cores(),
        ge=1,
        description="Live sessions at once, of each instance of the model; one more is refused.",
        json_schema_extra={"shown": "twice the number of cores"},
    )
    live_mib: int = Field(
        1024, ge=1, description="Most that the pictures of all live sessions of an instance may take in memory, in MiB."
    )


@dataclass(frozen=True)
class Setting:
    """One row of the documentation: environment variable, default as text, meaning."""

    variable: str
    default: str
    about: str


def described(settings: type[BaseSettings], left_out: Iterable[str] = ()) -> tuple[Setting, ...]:
    """What --help prints and the documents are held to."""
    return tuple(_setting(settings, name) for name in settings.model_fields if name not in left_out)


def _setting(settings: type[BaseSettings], name: str) -> Setting:
    field = settings.model_fields[name]
    extra = field.json_schema_extra
    default = extra["shown"] if isinstance(extra, dict) else field.default
    return Setting(variable_of(name), str(default), field.description or "")


def variable_of(name: str) -> str:
    """The environment variable of a setting: `port` is `AVATAR_PORT`."""
    return PREFIX + name.upper()


def _explain(error: ErrorDetails) -> str:
    reason = error["msg"].removeprefix("Value error, ")
    return f"{variable_of(str(error['loc'][0]))}: {reason} (got {str(error['input'])[:80]!r})"


Kind = TypeVar("Kind", bound=BaseSettings)


def load(kind: type[Kind], **given: Any) -> Kind:  # noqa: ANN401 - validated by pydantic
    """Settings from the environment, with those of `given` that are not None on top. Raises BadSetting."""
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise BadSetting("; ".join(_explain(item) for item in error.errors(include_url=False))) from None
