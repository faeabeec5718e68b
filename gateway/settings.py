"""The settings of the gateway: those of the job, those it shares with the workers, and its own."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator
from pydantic_settings import NoDecode

from avatar.settings import MIB, described, items
from avatar.settings import load as load_settings
from jobs.settings import ServiceSettings

Network = IPv4Network | IPv6Network


def _items(value: object) -> object:
    """Return the items of a comma-separated text; none of `none`."""
    return () if isinstance(value, str) and value.strip().lower() == "none" else items(value)


def _network(value: object) -> Network:
    try:
        return ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError("not an address or a network, such as 10.0.0.1 or 10.0.0.0/8") from None


def _origin(origin: str) -> str:
    if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s*]+", origin):
        raise ValueError("an origin is *, or a scheme and a host, such as https://example.com")
    return origin


def _stun(url: str) -> str:
    if not re.fullmatch(r"stun:[^\s/@]+", url):
        raise ValueError("a STUN server is stun:host or stun:host:port")
    return url


class Settings(ServiceSettings):
    """The settings of the gateway: from arguments, else from `AVATAR_…` variables, else the defaults."""

    host: str = Field("0.0.0.0", min_length=1, description="Address to listen on.")  # noqa: S104 - as in the original
    port: int = Field(16000, ge=0, le=65535, description="Port to listen on; 0 selects a free port.")
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
    drain_seconds: float = Field(
        0.0,
        ge=0,
        le=600,
        description="Seconds for which a gateway that is stopped is not ready, but goes on to accept requests, so that "
        "a balancer that asks `/health/ready` sends them to another one. Only then does `AVATAR_SHUTDOWN_GRACE` begin.",
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
    page: bool = Field(True, description="Whether browsers get the page at `GET /`; programs get links either way.")
    live_sockets: int = Field(
        32,
        ge=0,
        description="Live sessions over the gateway at the same time, by `/v1/live`; one more is rejected with 503. A "
        "single address may have half of them. 0 switches live sessions off.",
    )
    live_face_mib: int = Field(
        64, ge=1, description="Largest face of a live session over the gateway, in MiB; it is held in memory."
    )
    live_idle_seconds: float = Field(
        300.0,
        gt=0,
        le=86400,
        description="Seconds without a message of the caller after which a live session over the gateway is ended.",
    )
    webrtc_stun: Annotated[tuple[Annotated[str, AfterValidator(_stun)], ...], NoDecode, BeforeValidator(_items)] = (
        Field(
            (),
            description="STUN servers, separated by commas, that tell the gateway its public address for live sessions "
            "over WebRTC, such as `stun:stun.example.com:3478`. Without one it offers its own addresses only.",
            json_schema_extra={"shown": "none"},
        )
    )
    docs: bool = Field(True, description="Whether the pages `/docs` and `/redoc` and `/openapi.json` are served.")

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
