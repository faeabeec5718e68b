"""The Triton server of a measurement: one that runs already, or one that is started on exported models."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritonclient.grpc import InferenceServerClient

from avatar_client.access import Token
from demo.models import add_variant, export_models, variant_args
from embedded.server import Triton
from lipsync.tensors import MODELS

from ..cli import host_port
from ..paths import WORK
from ..weights import timing_weights
from .perf_analyzer import Target, is_local


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options that `server` reads."""
    group = parser.add_argument_group("server (default: a Triton is started on models that are exported for it)")
    group.add_argument("--url", type=host_port, metavar="HOST:PORT", help="gRPC address of a server that runs already")
    group.add_argument("--repository", type=Path, metavar="DIR", help="start a server on these exported models")
    add_variant(group)
    group.add_argument("--work", type=Path, default=WORK, help="folder for models and logs (default: build/bench)")


@contextmanager
def server(args: argparse.Namespace, sessions: int) -> Iterator[Target]:
    """Yield the server; one that is started here runs as long as the block.

    The token of a server that runs already is that of the environment (`AVATAR_TRITON_TOKEN`, or the file
    `AVATAR_TRITON_TOKEN_FILE`).

    Args:
        args: with the options of `add_server`.
        sessions: number of concurrent live sessions that a server started here must accept.

    Raises:
        InferenceServerException: the server at `--url` does not respond.
        StackError, EmbeddedError: the models could not be exported, or the server does not start.
    """
    if args.url:
        networks(args.url)  # fails at once if there is no server, instead of once per measurement
        yield Target(args.url, Token.from_environment())
        return
    repository = args.repository
    if repository is None:
        repository = args.work / "repository"
        export_models(timing_weights(args.work / "weights"), repository, variant_args(args))
    # Twice as many, because a session that ends overlaps with the next one for a moment.
    env = {"AVATAR_LIVE_SESSIONS": str(2 * sessions)}
    with Triton(repository, log=args.work / "logs" / "triton.log", on_progress=print, env=env) as triton:
        yield Target(triton.grpc_address, Token(triton.token))


def networks(url: str) -> dict[str, str]:
    """Return the backend and precision of each network, according to the server's configurations.

    Raises:
        InferenceServerException: no server responds.
    """
    client = InferenceServerClient(url, channel_args=[("grpc.enable_http_proxy", 0)] if is_local(url) else None)
    try:
        names = sorted(model.name for model in MODELS)
        configs = {name: client.get_model_config(name).config for name in names if client.is_model_ready(name)}
    finally:
        client.close()
    return {
        name: f"{config.backend} {config.parameters['precision'].string_value}".strip()
        for name, config in configs.items()
        if config.backend not in ("", "python")
    }
