"""Endpoints for probes: whether the process responds, and whether it can do a job."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from avatar.errors import ShuttingDown
from avatar.inference.protocol import InferenceClient, ReportsServers

from .endpoint import RETRY_AFTER, ServiceDep, problem
from .service import Service

router = APIRouter(tags=["health"])


class Pong(BaseModel):
    """Response to a ping."""

    pong: str = Field("-", description="Always a dash.")


class TritonHealth(BaseModel):
    """One Triton, as the gateway sees it."""

    server: str = Field(description="Its address.")
    healthy: bool = Field(description="Whether it gets calls.")


class Health(BaseModel):
    """Response of a healthy service."""

    status: str = Field(description="`live` or `ready`.")
    running: int = Field(description="Jobs that are running.")
    waiting: int = Field(description="Requests that wait in the queue.")
    last_fault: str | None = Field(
        None, description="The last fault of this machine that a request met since the start; absent if there was none."
    )
    last_fault_seconds_ago: int | None = Field(None, description="Seconds since then.")
    triton: list[TritonHealth] | None = Field(
        None, description="The Tritons, where there is more than one; one that answers is enough to be ready."
    )
    database_fault: str | None = Field(
        None, description="Why the database of the jobs cannot be used; the form works without it."
    )
    store_fault: str | None = Field(
        None, description="Why the store of the jobs' files cannot be used; the form works without it."
    )
    api_keys_fault: str | None = Field(
        None, description="Why the file of the API keys cannot be used; the keys that were read before stay valid."
    )


@router.get("/ping", summary="Check that the gateway responds")
async def ping() -> Pong:
    """Return the same response at all times, whether or not Triton is reachable."""
    return Pong(pong="-")


@router.get("/health/live", operation_id="check_live", summary="Liveness probe", response_model_exclude_none=True)
async def live(service: ServiceDep) -> Health:
    """Report that the process responds."""
    return _health("live", service)


@router.get(
    "/health/ready",
    operation_id="check_ready",
    summary="Readiness probe",
    response_model_exclude_none=True,
    responses={
        503: problem(
            "A model does not respond, the disk or ffmpeg of this machine fails, or the gateway is being started or "
            "stopped; `detail` names the reason.",
            RETRY_AFTER,
        )
    },
)
async def ready(service: ServiceDep) -> Health:
    """Report that every model responds, that the work folder can be written, and that ffmpeg works."""
    if service.jobs.draining:
        raise ShuttingDown()
    if service.v1:
        service.v1.check_started()
    await service.machine.check()
    await service.models.check_ready()
    database_fault = await service.v1.fault() if service.v1 else None
    store_fault = await service.v1.store.fault() if service.v1 else None
    return _health("ready", service).model_copy(update={"database_fault": database_fault, "store_fault": store_fault})


def _health(status: str, service: Service) -> Health:
    fault = service.machine.last_fault
    return Health(
        status=status,
        running=service.jobs.running,
        waiting=service.jobs.queued,
        triton=_tritons(service.models),
        last_fault=fault.reason if fault else None,
        last_fault_seconds_ago=fault.seconds_ago if fault else None,
        api_keys_fault=service.keys.check() if service.keys else None,
    )


def _tritons(models: InferenceClient) -> list[TritonHealth] | None:
    servers = models.servers() if isinstance(models, ReportsServers) else ()
    return [TritonHealth(server=each.address, healthy=each.healthy) for each in servers] if len(servers) > 1 else None
