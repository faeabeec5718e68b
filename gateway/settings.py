"""Every setting of the gateway: the job's, and its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from avatar.settings import MIB, JobSettings, described
from avatar.settings import load as load_settings


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(JobSettings):
    """The gateway's settings: arguments first, then `AVATAR_…` variables, then the defaults."""

    host: str = Field("0.0.0.0", min_length=1, description="Address to listen on.")  # noqa: S104 - as the original
    port: int = Field(16000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    triton: str = Field(
        "127.0.0.1:8001",
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$",
        description="Triton's gRPC address, host:port.",
    )
    triton_timeout: float = Field(120.0, gt=0, le=3600, description="Seconds that one call to Triton may take.")
    triton_shared_memory: Annotated[Literal["auto", "off"], BeforeValidator(_lower)] = Field(
        "auto",
        description="`auto`: frames go through shared memory where Triton is on this machine and can see it, else by "
        "gRPC; `off`: always by gRPC.",
    )
    strict_form: bool = Field(False, description="Whether a form with a field that is not documented is refused.")
    upload_timeout: float = Field(60.0, gt=0, le=3600, description="Seconds an upload may pause before it is given up.")
    shutdown_grace: float = Field(
        20.0, ge=0, le=3600, description="Seconds that running jobs get to finish when the gateway is stopped."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="Least severe level logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="`text`, or `json`: one object a line.")

    @property
    def max_form_bytes(self) -> int:
        """Largest accepted body: all three files, and room for the text fields and the multipart framing."""
        return 3 * self.max_upload_bytes + MIB


# What --help prints and the README is held to.
SETTINGS = described(Settings)


def load(**given: Any) -> Settings:  # noqa: ANN401 - validated by Settings itself
    """Settings from the environment, with those of `given` that are not None on top. Raises BadSetting."""
    return load_settings(Settings, **given)
