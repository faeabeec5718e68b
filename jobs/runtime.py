"""What every process that runs jobs outside Triton opens: the models, the work folder, and the job itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from avatar.errors import AvatarError
from avatar.inference.grpc_client import GrpcInferenceClient
from avatar.load import MemoryBudget
from avatar.media.marking import Marker
from avatar.pipeline import render
from avatar.resources.cache import Cache
from avatar.resources.workspace import Workspace
from avatar.settings import MIB

from .execution import Render
from .settings import ServiceSettings

logger = logging.getLogger("avatar")


def connect_models(settings: ServiceSettings) -> GrpcInferenceClient:
    """Return the client of the Triton in the settings. Its caller closes it."""
    return GrpcInferenceClient(
        settings.triton_url,
        settings.triton_timeout,
        shared_memory=settings.triton_shared_memory == "auto",
        token=settings.triton_token.get_secret_value(),
        token_file=settings.triton_token_file,
    )


async def greet_models(models: GrpcInferenceClient, settings: ServiceSettings) -> None:
    """Log where Triton is, and ask it whether it is ready: the client logs whether it is, and every change."""
    logger.info("the models are called at Triton %s", settings.triton_url)
    try:
        await models.check_ready()
    except AvatarError as error:
        if not models.servers():  # its name cannot be resolved
            logger.warning("Triton is not found: %s", error)


@asynccontextmanager
async def open_workspace(settings: ServiceSettings) -> AsyncIterator[Workspace]:
    """Open the work folder within the block; at its end, wait until no job uses it. Raises OSError."""
    workspace = Workspace(settings.work_dir)
    await asyncio.to_thread(workspace.open)
    try:
        yield workspace
    finally:
        await workspace.wait_unused()
        await asyncio.to_thread(workspace.close)


def real_job(settings: ServiceSettings, cache: Cache | None) -> Render:
    """Return the job with the cache, and with the memory and the mark of the settings."""
    memory = MemoryBudget(settings.jobs_memory_mib * MIB)
    return partial(render, cache=cache, memory=memory, marker=Marker.of(settings))
