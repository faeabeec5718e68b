"""HTTP server of the job: receives the form, answers with the mp4. Run it with `python -m gateway`.

    form ─► uploads (streamed into the request's folder) ─► avatar.form (AvatarRequest) ─► service (queue, job) ─► mp4

The gateway holds no step of the job itself; `avatar.render` does the work. `create_app` is imported on first use, so
that `--help` does not load the media libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name == "create_app":
        from .app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
