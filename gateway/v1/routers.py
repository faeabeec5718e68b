"""The routes of `/v1`."""

from __future__ import annotations

from . import avatars, events, jobs, results

v1_routers = (jobs.router, events.router, results.router, avatars.router)
