"""The settings that the gateway and the workers of the job queue share."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from avatar.inference.addresses import check_addresses
from avatar.settings import JobSettings, items, lower
from lipsync.triton.cpu import usable_cores

from .locations import check_location
from .net.addresses import AllowedHost, UrlRules


def _hosts(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        AllowedHost.parse(entry)
    return entries


Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(items)]


class ServiceSettings(JobSettings):
    """The settings of every process that runs jobs outside Triton."""

    triton_url: Annotated[str, AfterValidator(check_addresses)] = Field(
        "127.0.0.1:8001",
        description="gRPC address of Triton, host:port; or several, separated by commas. All addresses of a name are "
        "used (`triton:8001`, `dns:///triton:8001`), and looked up again every few seconds.",
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
    shutdown_grace: float = Field(
        20.0, ge=0, le=3600, description="Seconds that running jobs have to finish when the gateway is stopped."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = Field(
        "info", description="Lowest level that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="`text`, or `json`: one object per line.")
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL (15 or later) that holds the jobs of `/v1/jobs`, such as "
        "`postgresql://user:password@host/name`. Without it, `/v1` answers 501, and the form works as ever.",
        json_schema_extra={"shown": "none; `make up` sets it"},
    )
    store: Annotated[str, AfterValidator(check_location)] = Field(
        default_factory=lambda: str(Path(tempfile.gettempdir()) / f"talking-avatar-store-{os.geteuid()}"),
        min_length=1,
        description="Where the files of jobs are kept: a folder, or `s3://bucket/prefix`, `gs://…`, `az://…` with the "
        "cloud's own variables for access. All gateways and workers need the same one.",
        json_schema_extra={"shown": "`talking-avatar-store-UID` in the system's temporary folder"},
    )
    store_public_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+/?$",
        description="For a store in `s3://…`: the endpoint that callers reach, such as `https://files.example.com`, if "
        "it is not that of this process. The links to results name it.",
        json_schema_extra={"shown": "none", "expected": "a URL without a path, such as https://files.example.com"},
    )
    workers: int | None = Field(
        None,
        ge=0,
        description="Jobs of the queue that the gateway runs in its own process at the same time. 0: none, where "
        "`python -m jobs worker` runs them.",
        json_schema_extra={"shown": "the number of cores, at most half of AVATAR_MAX_JOBS"},
    )
    job_lease: float = Field(
        20.0,
        ge=1,
        le=600,
        description="Seconds after which a worker that is not heard of counts as lost; another one takes its job.",
    )
    job_attempts: int = Field(3, ge=1, le=100, description="How often a job is started before it fails.")
    result_ttl: float = Field(
        24.0, gt=0, description="Hours after which the result of a job is removed, and the job is `expired`."
    )
    job_retention: float = Field(
        168.0, gt=0, description="Hours after which the record of a job that has ended is removed."
    )
    avatar_retention: float = Field(
        720.0, gt=0, description="Hours without use after which a face kept by `POST /v1/avatars` is removed."
    )
    idempotency_ttl: float = Field(24.0, gt=0, description="Hours for which an `Idempotency-Key` counts.")
    api_keys: Path | None = Field(
        None,
        description="File with the hashed API keys, made by `python -m jobs keys add NAME`; read again when it "
        "changes. Without it, no call needs a key.",
        json_schema_extra={"shown": "none"},
    )
    key_max_queued: int = Field(1000, ge=1, description="Queued jobs that one API key may have.")
    key_max_running: int = Field(100, ge=1, description="Running jobs and forms that one API key may have.")
    key_uploads_per_minute: int = Field(600, ge=1, description="Jobs, forms and faces that one key may send a minute.")
    key_max_stored_mib: int = Field(
        50_000, ge=1, description="MiB that the files of one API key may take in the store."
    )
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(items)] = Field(
        (),
        description="Secrets that sign webhooks (Standard Webhooks), as `whsec_…`, separated by commas. Each message "
        "is signed with all of them, so that receivers can change from one to the next. Without one, jobs with a "
        "webhook are rejected.",
        json_schema_extra={"shown": "none"},
    )
    webhook_hours: float = Field(24.0, gt=0, description="Hours for which a webhook that fails is sent again.")
    url_seconds: float = Field(120.0, gt=0, le=3600, description="Seconds that a file at a URL may take to arrive.")
    url_allowed_hosts: Annotated[Texts, AfterValidator(_hosts)] = Field(
        (),
        description="Hosts and networks, separated by commas, that URLs of callers may name although their addresses "
        "are private, such as `files.internal` or `10.1.0.0/16`.",
        json_schema_extra={"shown": "none"},
    )
    url_allow_http: bool = Field(False, description="Whether URLs of callers may be `http://`.")
    url_s3_buckets: Texts = Field(
        (),
        description="Buckets, separated by commas, that `s3://` URLs of callers may name; the service's own access to "
        "them is used.",
        json_schema_extra={"shown": "none"},
    )

    @property
    def worker_count(self) -> int:
        """Return how many jobs of the queue the gateway runs at the same time."""
        return max(1, min(usable_cores(), self.max_jobs // 2)) if self.workers is None else self.workers

    @property
    def url_rules(self) -> UrlRules:
        """Return where the URLs of callers may lead."""
        return UrlRules.of(
            self.url_allowed_hosts,
            allow_http=self.url_allow_http,
            seconds=self.url_seconds,
            s3_buckets=self.url_s3_buckets,
        )

    @property
    def lease(self) -> timedelta:
        """Return the length of a lease."""
        return timedelta(seconds=self.job_lease)


class WorkerSettings(ServiceSettings):
    """The settings of `python -m jobs worker`: those of every process that runs jobs, and its own."""

    worker_jobs: int = Field(
        default_factory=usable_cores,
        ge=1,
        description="Jobs that `python -m jobs worker` runs at the same time.",
        json_schema_extra={"shown": "the number of cores"},
    )
    worker_host: str = Field(
        "0.0.0.0",  # noqa: S104 - as the gateway, for Prometheus on another machine
        min_length=1,
        description="Address on which a worker answers `/health` and `/metrics`.",
    )
    worker_port: int = Field(
        16001,
        ge=0,
        le=65535,
        description="Port on which a worker answers `/health` and `/metrics`; 0: it does not. Workers on one machine "
        "need different ones.",
    )
