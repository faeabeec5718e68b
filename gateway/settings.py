"""The settings of the gateway: those of the job, and its own."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr
from pydantic_settings import NoDecode

from avatar.settings import MIB, JobSettings, described, lower
from avatar.settings import load as load_settings

Network = IPv4Network | IPv6Network


def _items(value: object) -> object:
    """Return the items of a comma-separated text; none of `none`."""
    if not isinstance(value, str):
        return value
    return () if value.strip().lower() == "none" else tuple(filter(None, (item.strip() for item in value.split(","))))


def _network(value: object) -> Network:
    try:
        return ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError("not an address or a network, such as 10.0.0.1 or 10.0.0.0/8") from None


def _origin(origin: str) -> str:
    if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s*]+", origin):
        raise ValueError("an origin is *, or a scheme and a host, such as https://example.com")
    return origin


class Settings(JobSettings):
    """The settings of the gateway: from arguments, else from `AVATAR_…` variables, else the defaults."""

    host: str = Field("0.0.0.0", min_length=1, description="Address to listen on.")  # noqa: S104 - as in the original
    port: int = Field(16000, ge=0, le=65535, description="Port to listen on; 0 selects a free port.")
    triton_url: str = Field(
        "127.0.0.1:8001",
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$",
        description="gRPC address of Triton, host:port.",
    )
    triton_shared_memory: Annotated[Literal["auto", "off"], BeforeValidator(lower)] = Field(
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
        60.0, gt=0, le=3600, description="Seconds without data after which an upload or a download is aborted."
    )
    transfer_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds that every upload and every download may take, however small it is.",
    )
    transfer_min_rate: int = Field(
        50_000,
        ge=1,
        description="Bytes per second that an upload or a download must have on average after that.",
    )
    header_timeout: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds within which a connection must send the whole head of a request; otherwise it is closed.",
    )
    keep_alive_timeout: int = Field(
        5,
        ge=1,
        le=3600,
        description="Seconds after which a connection without a new request is closed. Behind a proxy that keeps "
        "connections open: longer than the proxy does.",
    )
    max_connections: int = Field(
        1000,
        ge=4,
        description="Connections at the same time; the gateway answers one more with 503. A single address may have "
        "half of them. Fewer if the process may not open enough files.",
    )
    max_jobs_per_client: int | None = Field(
        None,
        ge=0,
        description="Running and queued requests of one client address; one more is rejected with 429. 0: no limit.",
        json_schema_extra={"shown": "half of all places, at least AVATAR_MAX_JOBS, but never all of them"},
    )
    trusted_proxies: Annotated[
        tuple[Annotated[Network, PlainValidator(_network)], ...], NoDecode, BeforeValidator(_items)
    ] = Field(
        (),
        description="Addresses and networks of proxies in front of the gateway, separated by commas, such as "
        "`10.0.0.0/8`. From them, and only from them, `X-Forwarded-For` says who the client is.",
        json_schema_extra={"shown": "none"},
    )
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_items)] = (
        Field(
            ("*",),
            description="Web sites whose scripts may send forms and read the responses, separated by commas; `*`: "
            "all, as in the original service; `none`: no other site.",
            json_schema_extra={"shown": "`*`"},
        )
    )
    cors_credentials: bool = Field(
        True,
        description="Whether these scripts may use the cookies and the login of their visitor, as in the original "
        "service. Behind a proxy with a login: `false`, or list the sites.",
    )
    docs: bool = Field(True, description="Whether the pages `/docs` and `/redoc` and `/openapi.json` are served.")
    shutdown_grace: float = Field(
        20.0, ge=0, le=3600, description="Seconds that running jobs have to finish when the gateway is stopped."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = Field(
        "info", description="Lowest level that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="`text`, or `json`: one object per line.")

    @property
    def max_form_bytes(self) -> int:
        """Return the largest accepted body: three files, and 1 MiB for the text fields and the multipart framing."""
        return 3 * self.max_upload_bytes + MIB

    @property
    def jobs_per_client(self) -> int:
        """Return how many running and queued requests one client may have; 0 for any number."""
        if self.max_jobs_per_client is not None:
            return self.max_jobs_per_client
        places = self.max_jobs + self.max_queued
        return max(1, min(max(self.max_jobs, (places + 1) // 2), places - 1))


# For --help and the documentation.
SETTINGS = described(Settings)


def load(**given: object) -> Settings:
    """Return the settings from the environment, with those of `given` that are not None on top. Raises BadSetting."""
    return load_settings(Settings, **given)
