"""The routes of `/v1`, and the headers of their responses that scripts of web sites may read."""

from __future__ import annotations

from . import avatars, events, jobs, results
from .jobs import REPLAYED
from .prefer import APPLIED

v1_routers = (jobs.router, events.router, results.router, avatars.router)

EXPOSED = ("Location", APPLIED, REPLAYED, "ETag", "Accept-Ranges", "Content-Range", "Content-Disposition")
