"""The settings of the gateway: those of the job, and its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from avatar.settings import MIB, JobSettings, described
from avatar.settings import load as load_settings


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(JobSettings):
    """The settings of the gateway: from arguments, else from `AVATAR_…` variables, else the defaults."""

    host: str = Field("0.0.0.0", min_length=1, description="Address to listen on.")  # noqa: S104 - as in the original
    port: int = Field(16000, ge=0, le=65535, description="Port to listen on; 0 selects a free port.")
    triton_url: str = Field(
        "127.0.0.1:8001",
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$",
        description="gRPC address of Triton, host:port.",
    )
    triton_timeout: float = Field(120.0, gt=0, le=3600, description="Timeout of one call to Triton, in seconds.")
    triton_shared_memory: Annotated[Literal["auto", "off"], BeforeValidator(_lower)] = Field(
        "auto",
        description="`auto`: frames are sent through shared memory if Triton runs on this machine and can open it, "
        "otherwise in gRPC messages. `off`: always in gRPC messages.",
    )
    triton_token: SecretStr = Field(
        SecretStr(""),
        description="Token that Triton requires for shared memory. Without it, frames are sent in gRPC messages.",
        json_schema_extra={"shown": "none"},
    )
    triton_token_file: Path | None = Field(
        None,
        description="File with that token, such as the one that `python -m embedded` writes; read when it is needed, "
        "and used if `AVATAR_TRITON_TOKEN` is not set.",
        json_schema_extra={"shown": "none"},
    )
    strict_form: bool = Field(False, description="Whether a form with an unknown field is rejected.")
    upload_timeout: float = Field(
        60.0, gt=0, le=3600, description="Seconds without data after which an upload is aborted."
    )
    shutdown_grace: float = Field(
        20.0, ge=0, le=3600, description="Seconds that running jobs have to finish when the gateway is stopped."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="Lowest level that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="`text`, or `json`: one object per line.")

    @property
    def max_form_bytes(self) -> int:
        """Return the largest accepted body: three files, and 1 MiB for the text fields and the multipart framing."""
        return 3 * self.max_upload_bytes + MIB


# For --help and the documentation.
SETTINGS = described(Settings)


def load(**given: object) -> Settings:
    """Return the settings from the environment, with those of `given` that are not None on top. Raises BadSetting."""
    return load_settings(Settings, **given)
