"""The models over Triton's gRPC: the calls of a job, on one server or spread over several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path

import numpy as np

from avatar_client.access import Token
from lipsync import tensors
from lipsync.arrays import Array, Floats, Images, Labels
from lipsync.tensors import FACE_SIZE, Model

from ..errors import Unavailable
from ..options import Generator
from .addresses import Lookup, look_up, parse_addresses
from .live_failures import AvatarForgotten, cause
from .live_stream import Inputs, LiveStream
from .protocol import GENERATORS, ModelInfo, ServerState, described_by
from .rows import join_rows
from .server_pool import ServerPool
from .triton_server import TritonServer

TIMEOUT_SECONDS = 120.0


class GrpcInferenceClient:
    """Implements `InferenceClient` over one gRPC connection to each server, made at the first call, closed by `close`.

    Every call has a deadline. A call that a server does not answer because it is lost or stops is made on another one,
    within the same deadline. For one event loop.
    """

    def __init__(
        self,
        addresses: str,
        timeout: float = TIMEOUT_SECONDS,
        *,
        shared_memory: bool = True,
        token: str = "",
        token_file: Path | None = None,
        lookup: Lookup = look_up,
    ) -> None:
        """Make a client that connects at its first call.

        Args:
            addresses: host:port of Triton's gRPC, or several separated by commas. All addresses of a name are used, and
                looked up again all the time. An address, or `localhost`, is one server for good.
            timeout: seconds for one inference, including its wait in Triton's queues.
            shared_memory: False sends everything by gRPC.
            token: the token that Triton requires for shared memory. Without the right one, everything is sent by gRPC.
            token_file: a file that holds the token; it is read when the token is needed.
            lookup: resolves names.

        Raises:
            ValueError: an invalid address.
        """
        self._timeout = timeout
        self._versions: Mapping[str, str] = {}
        access = Token(token, token_file)

        def connect(address: str) -> TritonServer:
            return TritonServer(address, timeout, access, shared_memory=shared_memory)

        self._pool = ServerPool(parse_addresses(addresses), connect, lookup)

    def servers(self) -> Sequence[ServerState]:
        """Return the state of each server; none before the first call."""
        return self._pool.states()

    async def check_ready(self) -> None:
        """As `InferenceClient`; returns within five seconds. What is found out is remembered for some seconds.

        One server on which every model is ready is enough.
        """
        await self._pool.check_ready()

    async def model_info(self, generator: Generator) -> ModelInfo:
        """As `InferenceClient`, for all servers together; asked each time, because one may have been replaced."""
        net = GENERATORS[generator]
        configurations = await self._pool.served(described_by(net))
        return ModelInfo.shared([ModelInfo.of(net, each) for each in configurations])

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """As `InferenceClient`."""
        (windows,) = await self._infer(tensors.MEL_SPECTROGRAM, audio, np.array([fps]))
        return windows

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        """As `InferenceClient`."""
        if tensors.S3FD.name in self._versions:  # the ensemble calls the newest version
            candidates = await self._infer_rows(tensors.S3FD, frames)
            boxes, scores = await self._infer(tensors.FACE_NMS, *candidates)
        else:
            boxes, scores = await self._infer_rows(tensors.DETECT_FACES, frames)
        return boxes, scores

    async def wav2lip(self, faces: Images, windows: Floats, generator: Generator) -> Images:
        """As `InferenceClient`."""
        net = GENERATORS[generator]
        self._pool.uses(net)
        (mouths,) = await self._infer_rows(net, faces, windows, row_shape=(FACE_SIZE, FACE_SIZE, 3))
        return mouths

    async def segment(self, image: Images) -> Labels:
        """As `InferenceClient`."""
        (labels,) = await self._infer(tensors.SEGMENTATION, image, output_shape=image.shape[:2])
        return labels

    async def live(self, inputs: Inputs) -> LiveStream:
        """As `OffersLive`: on the server with the least to do, or on another one if that is away or full.

        A prepared avatar is looked for on each server, because only the one that has prepared it has it.
        """
        forgotten: AvatarForgotten | None = None

        async def make(server: TritonServer, seconds: float) -> LiveStream:
            nonlocal forgotten
            try:
                return await server.live(inputs, seconds)
            except AvatarForgotten as error:
                forgotten = error
                raise Unavailable(str(error)) from cause("NOT_FOUND")

        try:
            return await self._pool.call(make, self._timeout, model=tensors.LIVE)
        except Unavailable:
            if forgotten:
                raise forgotten from None
            raise

    def pinned(self, versions: Mapping[str, str]) -> GrpcInferenceClient:
        """As `InferenceClient`; the view shares the connections."""
        view = copy(self)
        view._versions = versions
        return view

    async def close(self) -> None:
        """As `InferenceClient`; calls in flight raise Unavailable, a later call connects again."""
        await self._pool.close()

    async def _infer(self, model: Model, *inputs: Array, output_shape: tuple[int, ...] | None = None) -> list[Array]:
        """Make one inference, with inputs and outputs in the order of the model's tensors."""
        version = self._versions.get(model.name, "")

        async def make(server: TritonServer, seconds: float) -> list[Array]:
            return await server.infer(model, inputs, output_shape, seconds, version)

        return await self._pool.call(make, self._timeout, model=model)

    async def _infer_rows(self, model: Model, *inputs: Array, row_shape: tuple[int, ...] | None = None) -> list[Array]:
        """As `_infer`, but in several calls where the server takes fewer rows than the servers that were asked."""
        count, version = len(inputs[-1]), self._versions.get(model.name, "")

        async def make(server: TritonServer, seconds: float) -> list[Array]:
            most = server.limits.get(model.name) or count
            parts = []
            for start in range(0, max(1, count), max(1, most)):
                rows = [each[start : start + most] for each in inputs]
                shape = (len(rows[-1]), *row_shape) if row_shape else None
                parts.append(await server.infer(model, rows, shape, seconds, version))
            return join_rows(parts)

        return await self._pool.call(make, self._timeout, model=model, rows=count)
