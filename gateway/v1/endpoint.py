"""What the endpoints of `/v1` share."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from ..authentication import Caller, caller_of
from ..endpoint import RETRY_AFTER, ServiceDep, problem
from ..errors import NoDatabase
from ..job_service import JobService


def _job_service(service: ServiceDep) -> JobService:
    if service.v1 is None:
        raise NoDatabase(
            "this service has no database for jobs; set AVATAR_DATABASE_URL, or send the form to POST / and wait"
        )
    service.v1.check_schema()
    return service.v1


JobServiceDep = Annotated[JobService, Depends(_job_service)]


def _caller(request: Request) -> Caller:
    return caller_of(request)


def operation_id(route: APIRoute) -> str:
    """Return the name of an operation in generated clients: `submit_job`."""
    return route.name


CallerDep = Annotated[Caller, Depends(_caller)]

# Of every call: responses for the OpenAPI schema.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: problem("The service needs an API key, and the request has no valid one."),
    500: problem("Internal error; the log has the details under the request id."),
    501: problem("The service has no database for jobs."),
    503: problem("The database, the store or the disk does not respond, or the gateway is being stopped.", RETRY_AFTER),
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: problem("The caller has nothing with this id.")}
