"""One Triton: its connection, its shared memory, and what is known of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence

from tritonclient.grpc.aio import InferenceServerClient, InferRequestedOutput

from avatar_client.access import Token
from avatar_client.region_pool import Region
from lipsync import tensors
from lipsync.arrays import Array
from lipsync.errors import InvalidInput
from lipsync.tensors import Model

from ..errors import Unavailable
from ..tracing import infer_span
from .live_stream import Inputs, LiveStream
from .protocol import ServedModel, ServerState
from .readiness import CALL_SECONDS, Readiness, tiny_inputs
from .rows import count_rows
from .shared_memory import SharedMemoryPool
from .shm_layout import Layout, plan_layout
from .triton_rpc import (
    READY_SECONDS,
    Registry,
    cause_of,
    connect,
    gather_all,
    inputs_of,
    may_have_forgotten,
    may_lack_version,
    message,
    result_of,
    served_model,
)

logger = logging.getLogger("avatar")

REQUIRED_MODELS = (
    tensors.MEL_SPECTROGRAM,
    tensors.S3FD,
    tensors.FACE_NMS,
    tensors.DETECT_FACES,
    tensors.WAV2LIP,
    tensors.SEGMENTATION,
)


class TritonServer:
    """One server, over one gRPC connection, which is made at the first call and closed by `close`.

    Where it is on this machine, large arrays are sent through shared memory. Whether it is, is found out by trying, and
    tried again when the server changes. Every call has a deadline. For one event loop.

    Attributes:
        address: host:port.
        in_flight: inferences that have no response yet.
        sessions: live sessions that have not ended.
        answered_at: when it answered last, by `time.monotonic`.
        failing: whether the last call, or check of readiness, failed.
        limits: most rows of one call, by the name of the model, where they are known; 0 for one that it does not serve.
    """

    def __init__(self, address: str, timeout: float, token: Token, *, shared_memory: bool = True) -> None:
        self.address, self._timeout, self._token, self._shared_memory = address, timeout, token, shared_memory
        self.in_flight, self.sessions, self._calls, self._failures = 0, 0, 0, 0
        self.answered_at, self.failing = time.monotonic(), False
        self.limits: dict[str, int] = {}
        self._logged: bool | None = None  # whether it serves, as the log says it; None: it says nothing yet
        self._connection: InferenceServerClient | None = None
        self._pool: SharedMemoryPool | None = None
        self._readiness = Readiness(self._call_tiny)

    @property
    def load(self) -> int:
        """Number of inferences, and of live sessions, that it has to do."""
        return self.in_flight + self.sessions

    def state(self, healthy: bool | None) -> ServerState:
        """Return what the metrics show of it; None: it is healthy unless its last call failed."""
        healthy = not self.failing if healthy is None else healthy
        return ServerState(self.address, healthy, self._calls, self._failures, self.in_flight)

    async def check_ready(self, generators: Iterable[Model]) -> None:
        """As `InferenceClient`; returns within five seconds. What is found out is remembered for some seconds."""
        try:
            await self._readiness.check(self._check_loaded, generators)
        except Unavailable:
            self.failing = True
            raise
        self._answered()

    async def check_up(self) -> None:
        """Ask only the server whether it is ready: not while it starts or stops. Raises Unavailable."""
        ready = await result_of(self._client.is_server_ready(client_timeout=READY_SECONDS), "Triton")
        self._answered()
        if not ready:
            raise Unavailable("the models are not ready: the server is starting")

    async def served(self, models: Sequence[Model]) -> dict[str, ServedModel]:
        """Return the configurations of models, by name."""
        calls = [self._client.get_model_config(model.name, client_timeout=READY_SECONDS) for model in models]
        responses = await result_of(gather_all(calls), "the models")
        served = [served_model(response.config) for response in responses]
        return {model.name: each for model, each in zip(models, served, strict=True)}

    async def infer(
        self,
        model: Model,
        inputs: Sequence[Array],
        output_shape: tuple[int, ...] | None,
        seconds: float,
        version: str = "",
    ) -> list[Array]:
        """Make one inference, with inputs and outputs in the order of the model's tensors.

        Args:
            model: the model to call.
            inputs: one array for each input.
            output_shape: of the only output, where it is known in advance: then it can be written to shared memory.
            seconds: deadline.
            version: of the model, by default the newest; where the server has no such version, the newest answers.
        """
        layout = plan_layout(model, inputs, output_shape)
        self.in_flight += 1
        self._calls += 1
        try:
            outputs = await self._infer_version(model, layout, inputs, seconds, version)
        except Unavailable:
            self._failures, self.failing = self._failures + 1, True
            self._readiness.failed()
            raise
        finally:
            self.in_flight -= 1
        self._readiness.answered(model)
        self._answered()
        return outputs

    async def live(self, inputs: Inputs, seconds: float) -> LiveStream:
        """Start a live session within `seconds`; `inputs` are those of its first request. Raises AvatarError."""
        stream = LiveStream(self.address, self._session_ended)
        self.sessions += 1
        await stream.start(self._client.stream_infer, inputs, seconds)
        self._answered()
        return stream

    def _session_ended(self) -> None:
        self.sessions -= 1

    def log_change(self, state: str, reason: Unavailable | None = None) -> None:
        """Log that the server began to serve, or, with the reason, that it does not; only where that is news."""
        if self._logged is (serves := reason is None):
            return
        self._logged = serves
        if reason is None:
            logger.info("Triton at %s %s", self.address, state)
        else:
            logger.warning("Triton at %s %s: %s (%s)", self.address, state, reason, cause_of(reason))

    def forget(self) -> None:
        """Forget which models have answered: the server may be another one by now."""
        self._readiness.failed()

    async def disconnect(self) -> None:
        """Close the connection: calls in flight raise Unavailable, and a later call connects again."""
        self.forget()
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()

    async def close(self) -> None:
        """As `disconnect`; also release the shared memory."""
        pool, self._pool = self._pool, None
        await self.disconnect()
        if pool:
            await pool.close()

    @property
    def _client(self) -> InferenceServerClient:
        if self._connection is None:
            self._connection = connect(self.address)
        return self._connection

    def _answered(self) -> None:
        self.answered_at, self.failing = time.monotonic(), False

    async def _check_loaded(self) -> None:
        """Ask the server which models it has; that they answer is another question."""
        calls = [self._client.is_server_ready(client_timeout=READY_SECONDS)]
        calls += [self._client.is_model_ready(model.name, client_timeout=READY_SECONDS) for model in REQUIRED_MODELS]
        ready = await result_of(gather_all(calls), "the models")
        missing = [model.name for model, up in zip(REQUIRED_MODELS, ready[1:], strict=True) if not up]
        if missing or not ready[0]:
            raise Unavailable(f"the models are not ready: {', '.join(missing) or 'the server is starting'}")

    async def _call_tiny(self, model: Model) -> None:
        sent = [message(*pair) for pair in tiny_inputs(model)]
        await result_of(self._client.infer(model.name, sent, client_timeout=2 * CALL_SECONDS), model.name)

    async def _infer_version(
        self, model: Model, layout: Layout, inputs: Sequence[Array], seconds: float, version: str
    ) -> list[Array]:
        try:
            return await self._infer_once(model, layout, inputs, seconds, version)
        except Unavailable as error:
            if not version or not may_lack_version(error):
                raise
        return await self._infer_once(model, layout, inputs, seconds)

    async def _infer_once(
        self, model: Model, layout: Layout, inputs: Sequence[Array], seconds: float, version: str = ""
    ) -> list[Array]:
        if self._shared_memory and layout.size and self._pool is None:
            self._pool = SharedMemoryPool(Registry(self.address, self._token), self._timeout)
        pool = self._pool
        region = await pool.acquire(layout.size) if pool and layout.size else None
        if pool is None or region is None:
            return await self._send(model, inputs, layout, seconds, version=version)
        try:
            outputs = await self._send(model, inputs, layout, seconds, region, version)
        except (InvalidInput, Unavailable) as error:
            pool.discard(region)
            if not may_have_forgotten(error):
                raise
        except BaseException:  # cancelled: the server may still work on it
            pool.discard(region)
            raise
        else:
            pool.release(region)
            return outputs
        outputs = await self._send(model, inputs, layout, seconds, version=version)  # invalid input: rejected once more
        pool.invalidate()
        return outputs

    async def _send(
        self,
        model: Model,
        inputs: Sequence[Array],
        layout: Layout,
        seconds: float,
        region: Region | None = None,
        version: str = "",
    ) -> list[Array]:
        sent = await asyncio.to_thread(inputs_of, model, inputs, layout, region)  # copies the frames
        outputs = [InferRequestedOutput(tensor.name) for tensor in model.outputs]
        span = layout.output if region else None
        if region and span:
            outputs[0].set_shared_memory(region.name, span.nbytes, span.offset)
        batch, size = count_rows(model, inputs), sum(array.nbytes for array in inputs)
        with infer_span(model.name, self.address, batch=batch, size=size, shared_memory=region is not None) as along:
            call = self._client.infer(
                model.name,
                sent,
                model_version=version,
                outputs=outputs,
                client_timeout=seconds,
                headers=along.headers,
                request_id=along.request_id,
            )
            result = await result_of(call, model.name)
        if region and span:  # copied, because the next call uses the region
            shape = tuple(result.get_output(model.outputs[0].name).shape)
            return [region.array(span.offset, shape, model.outputs[0].numpy).copy()]
        return [result.as_numpy(tensor.name) for tensor in model.outputs]
