"""`GET /`: the page for browsers, links for programs; and the files of the page."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from ..docs_pages import OPENAPI
from ..endpoint import ServiceDep
from ..settings import Settings
from ..socket_connection import LIVE_PATH
from .files import HEADERS, ICON, INDEX, page_files
from .stand_ins import StandIns

_HTML = ("text/html", "application/xhtml+xml")


class Index(BaseModel):
    """What this service has, and where."""

    version: str = Field(description="Of this service.")
    form: str = Field(description="Takes the form by POST.")
    jobs: str | None = Field(description="Takes jobs; null if this service has no database for them.")
    live: str | None = Field(description="Takes live sessions over a WebSocket; null if this service has none.")
    page: str | None = Field(description="The page for people; null if it is switched off.")
    docs: str | None = Field(description="The page that describes every call; null if it is switched off.")
    openapi: str | None = Field(description="The OpenAPI schema; null if it is switched off.")
    health: str = Field(description="Whether the service can do a job.")
    needs_key: bool = Field(description="Whether calls need an API key.")
    stand_ins: list[str] | None = Field(
        description="Models that run on stand-in checkpoints; empty with real weights, null while it is not known."
    )


def page_router(settings: Settings) -> APIRouter:
    """Return the routes of `GET /`, of the icon, and, unless the page is switched off, of its files."""
    router = APIRouter(include_in_schema=False)
    stand_ins = StandIns()

    @router.get("/")
    async def index(request: Request, service: ServiceDep) -> Response:
        """Return the page to a browser, and links to a program."""
        if settings.page and _wants_html(request.headers.get("accept", "")):
            return page_files()[INDEX].response(request, {**HEADERS, "Vary": "Accept"})
        links = Index(
            version=version("talking-avatar"),
            form="/",
            jobs="/v1/jobs" if service.v1 else None,
            live=LIVE_PATH if settings.live_sockets else None,
            page="/" if settings.page else None,
            docs="/docs" if settings.docs else None,
            openapi=OPENAPI if settings.docs else None,
            health="/health/ready",
            needs_key=service.keys is not None,
            stand_ins=await stand_ins.read(service.models),
        )
        return JSONResponse(links.model_dump(), headers={"Vary": "Accept", "Cache-Control": "no-cache"})

    @router.get("/favicon.ico")
    async def icon(request: Request) -> Response:
        """Return the icon that browsers ask for, whatever page they show."""
        return page_files()[ICON].response(request)

    if settings.page:
        _add_files(router)
    return router


def _add_files(router: APIRouter) -> None:
    @router.get("/page/assets/{name}")
    async def asset(name: str, request: Request) -> Response:
        """Return a script, a style sheet, an image or a sample of the page."""
        file = page_files().get(name)
        if file is None:
            raise HTTPException(404)
        return file.response(request)

    @router.get("/page/openapi.json")
    async def schema(request: Request) -> Response:
        """Return the OpenAPI schema, from which the page takes the options, also where the docs are switched off."""
        return JSONResponse(request.app.openapi(), headers={"Cache-Control": "no-cache"})


def _wants_html(accept: str) -> bool:
    """Return whether an Accept header names HTML, as those of browsers do; `*/*` alone is a program's."""
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        if kind in _HTML and not any(part.replace(" ", "") in ("q=0", "q=0.0") for part in parameters):
            return True
    return False
