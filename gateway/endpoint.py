"""What the endpoints share: how they get the service, and how they describe their error responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from .errors import Problem
from .service import Service

RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": {"type": "integer"}}
}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


async def _request_folder(service: ServiceDep) -> AsyncIterator[Path]:
    # FastAPI ends this after the last byte of the response, also when the request fails.
    async with service.workspace.folder() as folder:
        yield folder


FolderDep = Annotated[Path, Depends(_request_folder)]


def problem(description: str, headers: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return the description of an error response for the OpenAPI schema."""
    return {"model": Problem, "description": description} | ({"headers": headers} if headers else {})
