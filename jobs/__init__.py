"""Jobs that survive: PostgreSQL is their record, PgQueuer dispatches them, workers of any machine run them.

The package knows no HTTP server: the gateway has the routes. It imports `avatar` for the job itself.
"""

from __future__ import annotations
