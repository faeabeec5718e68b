"""The pages `/docs` and `/redoc`. Their scripts come from this process, so they work offline and load nothing else."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response

OPENAPI = "/openapi.json"
# The scripts of Swagger UI and ReDoc write style attributes; ReDoc searches in a worker that it makes from a blob.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Talking avatar</title>
<link rel="icon" href="favicon.ico">
"""
_SWAGGER = f"""{_HEAD}<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/start.js"></script>
</body>
</html>
"""
_REDOC = f"""{_HEAD}</head>
<body>
<redoc spec-url="{OPENAPI.lstrip("/")}"></redoc>
<script src="docs/assets/redoc.standalone.js"></script>
</body>
</html>
"""
# Addresses are relative to the page: a proxy may serve the gateway below a path of its own.
_START = f"""SwaggerUIBundle({{
    url: "{OPENAPI.lstrip("/")}",
    dom_id: "#swagger-ui",
    deepLinking: true,
    layout: "BaseLayout",
    presets: [SwaggerUIBundle.presets.apis],
    validatorUrl: null,
}});
"""
_ASSETS = ("redoc.standalone.js", "swagger-ui-bundle.js", "swagger-ui.css")

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def swagger_ui() -> Response:
    """Return the page of Swagger UI."""
    return HTMLResponse(_SWAGGER, headers=_HEADERS)


@router.get("/redoc")
async def redoc() -> Response:
    """Return the page of ReDoc."""
    return HTMLResponse(_REDOC, headers=_HEADERS)


@router.get("/docs/assets/{name}")
async def asset(name: str) -> Response:
    """Return a script or a style sheet of these pages."""
    headers = _HEADERS | {"Cache-Control": "max-age=3600"}
    if name == "start.js":
        return Response(_START, media_type="text/javascript", headers=headers)
    if name not in _ASSETS:
        raise HTTPException(404)
    return FileResponse(_folder() / name, headers=headers)


def _folder() -> Path:
    """Return the folder of the package `fastapi-offline`, of which only the files are used."""
    spec = find_spec("fastapi_offline")
    if spec is None or not spec.submodule_search_locations:
        raise HTTPException(404, "the package fastapi-offline is not installed")
    return Path(spec.submodule_search_locations[0]) / "static"
