"""The routes of `/v1`."""

from __future__ import annotations

from . import jobs

v1_routers = (jobs.router,)
