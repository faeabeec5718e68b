"""HEAD and OPTIONS for every route: balancers and monitors ask by them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute


def head_and_options(*routers: APIRouter) -> APIRouter:
    """Return routes that answer HEAD wherever these routers answer GET, and OPTIONS with the allowed methods."""
    answers = APIRouter(include_in_schema=False)
    methods: defaultdict[str, set[str]] = defaultdict(lambda: {"OPTIONS"})
    for router in routers:
        for route in router.routes:
            if not isinstance(route, APIRoute):
                continue
            methods[route.path] |= route.methods or set()
            if "GET" in methods[route.path]:
                methods[route.path].add("HEAD")
                # the server sends the headers of the response without its body
                answers.add_api_route(route.path, route.endpoint, methods=["HEAD"])
    for path, allowed in methods.items():
        answers.add_api_route(path, _options(", ".join(sorted(allowed))), methods=["OPTIONS"])
    return answers


def _options(allowed: str) -> Callable[[], Awaitable[Response]]:
    async def options() -> Response:
        return Response(status_code=204, headers={"Allow": allowed})

    return options
