"""The settings of the job, for the gateway and for Triton: read once, validated, frozen.

No other module of this package reads the environment.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from lipsync.triton.cpu import usable_cores

from .limits import Limits
from .load import usable_memory
from .setting_words import expectation, unknown_variables

PREFIX = "AVATAR_"
MIB = 1024 * 1024
MIN_JOBS = 24  # jobs at the same time, by default, on a machine with few cores
MIN_JOBS_MEMORY_MIB = 1024
# Earlier names of variables, accepted for one release. If both are set, the new name counts.
OLD_NAMES: Mapping[str, str] = {
    "AVATAR_TRITON": "AVATAR_TRITON_URL",
    "AVATAR_MAX_WAITING": "AVATAR_MAX_QUEUED",
    "AVATAR_LIVE_MIB": "AVATAR_LIVE_MEMORY_MIB",
}


class BadSetting(ValueError):
    """One or more settings are invalid. The message is one line that names each by its variable."""


def lower(value: object) -> object:
    """Return a text in lower case, for settings that are one of a few words."""
    return value.lower() if isinstance(value, str) else value


def items(value: object) -> object:
    """Return the items of a comma-separated text."""
    return tuple(filter(None, (item.strip() for item in value.split(",")))) if isinstance(value, str) else value


def _writable_folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError("the folder does not exist")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError("the folder is not writable")
    return path.resolve()


def _file_of_c2pa(path: Path | None, info: ValidationInfo) -> Path | None:
    if path is None and info.data.get("mark") == "c2pa":
        raise ValueError("AVATAR_MARK=c2pa needs this file")
    return path


def _possible(required: bool, info: ValidationInfo) -> bool:
    if required and info.data.get("mark") == "none":
        raise ValueError("AVATAR_MARK=none marks no video; choose metadata or c2pa, or require no mark")
    return required


def _default_max_jobs() -> int:
    # Two jobs keep two cores busy. More of them are for their callers: running jobs progress at the same pace, so a
    # short one does not wait for long ones, and of many that arrive together none waits much longer than the others.
    return max(MIN_JOBS, usable_cores())


def _default_jobs_memory_mib() -> int:
    return max(MIN_JOBS_MEMORY_MIB, usable_memory() // 4 // MIB)


class JobSettings(BaseSettings):
    """The settings of every job: from arguments, else from `AVATAR_…` variables, else the defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    work_dir: Annotated[Path, AfterValidator(_writable_folder)] = Field(
        default_factory=lambda: Path(tempfile.gettempdir()),
        description="Existing folder for the temporary files of requests.",
        json_schema_extra={"shown": "the system's temporary folder"},
    )
    cache_mib: int = Field(
        512,
        ge=0,
        description="Size of the avatar cache on disk in MiB (detected faces, replaced backgrounds). A quarter of it "
        "is also held in memory. 0 disables the cache.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / f"talking-avatar-cache-{os.geteuid()}",
        description="Folder of the cache, shared by all processes of a machine; created if missing.",
        json_schema_extra={"shown": "`talking-avatar-cache-UID` in the system's temporary folder"},
    )
    max_upload_bytes: int = Field(512 * MIB, ge=1, description="Largest accepted size of each file, in bytes.")
    max_megapixels: float = Field(100, gt=0, le=178, description="Largest accepted image or video frame.")
    work_megapixels: float = Field(
        8.3,
        ge=0.1,
        le=100,
        description="Larger images and video frames are scaled down to this; 8.3 is 3840x2160. The face detector takes "
        "0.5 GB of memory for each megapixel, and rejects larger images in the embedded server: set it there too.",
    )
    max_speech_seconds: int = Field(3600, ge=1, le=86400, description="Longest accepted audio, in seconds.")
    max_frames: int = Field(216_000, ge=1, le=2_000_000, description="Most frames of a result (its length x its rate).")
    max_fps: int = Field(240, ge=1, le=1000, description="Highest accepted frame rate of a video.")
    max_jobs: int = Field(
        default_factory=_default_max_jobs,
        ge=1,
        description="Jobs that run at the same time and share the machine; others wait in order.",
        json_schema_extra={"shown": f"the number of cores, at least {MIN_JOBS}"},
    )
    jobs_memory_mib: int = Field(
        default_factory=_default_jobs_memory_mib,
        ge=1,
        description="Memory that the frames and the ffmpegs of all running jobs may take together, in MiB. A job whose "
        "image or video needs more than is free waits for its turn; one that needs more than all of it runs alone.",
        json_schema_extra={"shown": f"a quarter of the memory, at least {MIN_JOBS_MEMORY_MIB}"},
    )
    triton_timeout: float = Field(
        120.0,
        gt=0,
        le=3600,
        description="Timeout of one call of a model, including its wait in Triton's queues, in seconds.",
    )
    max_queued: int = Field(32, ge=0, description="Requests that may wait; one more is rejected with 503.")
    encoder: Annotated[Literal["auto", "x264", "nvenc"], BeforeValidator(lower)] = Field(
        "auto",
        description="`auto`: mp4s are encoded by the GPU (NVENC) if it encodes a frame at start, otherwise by x264. "
        "`nvenc`: the process does not start without NVENC. With both, x264 replaces it where it fails.",
    )
    decoder: Annotated[Literal["auto", "cpu", "cuda"], BeforeValidator(lower)] = Field(
        "auto",
        description="`auto`: ordinary videos are decoded by the GPU (NVDEC) if it decodes a frame at start, otherwise "
        "by the CPU. `cuda`: the process does not start without NVDEC. With both, the CPU replaces it where it fails.",
    )
    mark: Annotated[Literal["metadata", "c2pa", "none"], BeforeValidator(lower)] = Field(
        "metadata",
        description="How a video says that it is synthetic. `metadata`: by the IPTC digital source type in its XMP and "
        "by a comment. `c2pa`: also by a signed C2PA manifest. `none`: not at all.",
    )
    c2pa_certificate: Annotated[Path | None, AfterValidator(_file_of_c2pa)] = Field(
        None,
        validate_default=True,
        description="PEM file for `AVATAR_MARK=c2pa`: the certificate of the signer, followed by those that issued it.",
        json_schema_extra={"shown": "none"},
    )
    c2pa_key: Annotated[Path | None, AfterValidator(_file_of_c2pa)] = Field(
        None,
        validate_default=True,
        description="PEM file with the private key of that certificate, without a password. Its kind decides the "
        "algorithm: P-256, P-384, P-521, Ed25519 or RSA.",
        json_schema_extra={"shown": "none"},
    )
    mark_required: Annotated[bool, AfterValidator(_possible)] = Field(
        False,
        description="Whether a video may only leave with its mark: one that cannot be signed is a 503. Otherwise it is "
        "sent with its metadata and a note.",
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$",
        description="Collector of OpenTelemetry that gets traces by OTLP over HTTP, such as `http://collector:4318`. "
        "Without it, no traces are made. The standard variables `OTEL_…` set the rest.",
        json_schema_extra={"shown": "none", "expected": "a URL of http or https, such as http://collector:4318"},
    )

    @property
    def limits(self) -> Limits:
        """Return the limits of a job."""
        return Limits(
            max_pixels=int(self.max_megapixels * 1e6),
            max_work_pixels=int(self.work_megapixels * 1e6),
            max_audio_seconds=self.max_speech_seconds,
            max_frames=self.max_frames,
            max_fps=self.max_fps,
        )


class StreamSettings(JobSettings):
    """The settings of the models that stream: those of the job, and of what their callers may leave unread."""

    unread_mib: int = Field(
        512,
        ge=1,
        description="A stream is ended if its caller has not acknowledged this many MiB of its responses, and the "
        "memory of the server has grown by as much meanwhile: the caller does not read.",
    )


class LiveSettings(StreamSettings):
    """The settings of the model `live`: those of the job, and its own."""

    live_sessions: int = Field(
        default_factory=lambda: 2 * usable_cores(),
        ge=1,
        description="Live sessions at the same time per instance of the model; one more is rejected.",
        json_schema_extra={"shown": "twice the number of cores"},
    )
    live_memory_mib: int = Field(
        1024, ge=1, description="Memory that the frames of all live sessions of an instance may take together, in MiB."
    )
    live_avatars_mib: int = Field(
        256,
        ge=0,
        description="Memory for avatars that live sessions have prepared, in MiB per instance of the model: later "
        "sessions of the same avatar start at once. All instances share as much in a folder of the cache, unless "
        "`AVATAR_CACHE_MIB` is 0. 0 keeps none.",
    )
    live_require_token: bool = Field(
        False,
        description="Reject requests of a live session without its token, which callers of API 1.0 do not send.",
    )


@dataclass(frozen=True)
class Setting:
    """One setting, for the documentation: environment variable, default as text, description."""

    variable: str
    default: str
    description: str


def described(settings: type[BaseSettings], left_out: Iterable[str] = ()) -> tuple[Setting, ...]:
    """Return the settings of a class, for `--help` and the documentation."""
    return tuple(_setting(settings, name) for name in settings.model_fields if name not in left_out)


def _setting(settings: type[BaseSettings], name: str) -> Setting:
    field = settings.model_fields[name]
    extra = field.json_schema_extra
    default = extra["shown"] if isinstance(extra, dict) else field.default
    return Setting(variable_of(name), str(default), field.description or "")


def variable_of(name: str) -> str:
    """Return the environment variable of a setting: `AVATAR_PORT` for `port`."""
    return PREFIX + name.upper()


def _explain(settings: type[BaseSettings], error: ErrorDetails) -> str:
    name = str(error["loc"][0])
    reason = expectation(settings.model_fields[name], error) if name in settings.model_fields else error["msg"]
    return f"{variable_of(name)}: {reason} (got {str(error['input'])[:80]!r})"


S = TypeVar("S", bound=BaseSettings)


def load(settings_class: type[S], **given: object) -> S:
    """Return the settings from the environment, with those of `given` that are not None on top. Raises BadSetting."""
    values: dict[str, object] = {name: os.environ[old] for name, old in _old_names(settings_class).items()}
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        return settings_class.model_validate(values)  # which also reads the environment
    except ValidationError as error:
        raise BadSetting(
            "; ".join(_explain(settings_class, item) for item in error.errors(include_url=False))
        ) from None


def warn_of_names(settings_class: type[BaseSettings], log: logging.Logger, *others: type[BaseSettings]) -> None:
    """Log a warning for each variable that is no setting, and for each that is set by its old name.

    Args:
        settings_class: the settings of this process.
        log: where the warnings go.
        others: settings of other processes, which often share an environment with this one.
    """
    classes: tuple[type[BaseSettings], ...] = (settings_class, LiveSettings, *others)
    known = {variable_of(name) for each in classes for name in each.model_fields}
    for name, similar in unknown_variables(os.environ, known | OLD_NAMES.keys(), PREFIX).items():
        advice = f"; did you mean {similar}?" if similar else ""
        log.warning("%s is not a setting, and is ignored%s", name, advice)
    warn_of_old_names(settings_class, log)


def warn_of_old_names(settings_class: type[BaseSettings], log: logging.Logger) -> None:
    """Log a warning for each variable of this class that is set by its old name."""
    for name, old in _old_names(settings_class).items():
        log.warning("%s is the old name of %s and will be removed in the next release", old, variable_of(name))


def _old_names(settings_class: type[BaseSettings]) -> dict[str, str]:
    """Return the settings that are given by an old variable only, each with that variable."""
    names = {variable_of(name): name for name in settings_class.model_fields}
    return {
        names[new]: old
        for old, new in OLD_NAMES.items()
        if new in names and os.environ.get(old) and not os.environ.get(new)
    }
