"""Triton's own table of sequences, in which the model `live` keeps its sessions.

Triton counts every sequence in its table as an inference in progress, and waits for it when the server is stopped. A
sequence leaves the table by a request with the END flag, from any caller, or three seconds after its last request
(`export.triton_config.runtimes`). So the model sends requests to itself for each session that runs: they keep its
sequence in the table, and enter it again where a stranger has ended it. Those of lost callers leave it by themselves.

A server that is being stopped accepts no such request. In this way the model notices the stop.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lipsync.tensors import LIVE, SESSION_TOKEN
from lipsync.triton.pb_utils import PbUtils

from ..errors import ShuttingDown, Unavailable
from ..inference.bls_client import SERVER_STOPPING
from .request import StreamRequest

THREADS = 4
ID_BYTES = 16
MAX_TRIES = 64  # for a new sequence, which Triton may give to any instance; they are few
# The server is being stopped, or the model is being unloaded: a model that calls itself and is not served any more.
_STOPPING = (*SERVER_STOPPING, "is not ready", "has no available versions", "unknown model")
_NOT_IN_TABLE = "must specify the START flag"


class SequenceTable:
    """Requests of the model to itself. They carry a secret of this process, and only change Triton's table."""

    def __init__(self, pb_utils: PbUtils) -> None:
        self._pb = pb_utils
        self._secret = secrets.token_hex(16)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sequence")

    def is_own(self, request: StreamRequest) -> bool:
        """Return whether this process has sent the request."""
        token = request.texts().get(SESSION_TOKEN, "")
        return secrets.compare_digest(token.encode(), self._secret.encode())

    def is_internal(self, request: StreamRequest) -> bool:
        """Return whether the request is of no interest to people: this process has sent it, or another one like this.

        A first request with nothing but a token starts nothing, whoever has sent it.
        """
        return self.is_own(request) or (request.is_start and request.inputs.keys() == {SESSION_TOKEN})

    async def enter(self, sequence: int | str) -> bool:
        """Enter a sequence again. False where it is with another instance of the model now.

        Raises:
            ShuttingDown: the server is being stopped.
        """
        return not await self._send(sequence, self._pb.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START)

    async def new(self) -> str:
        """Return a random id of a new sequence that is in the table, at this instance of the model.

        Raises:
            Unavailable: Triton has given it to other instances every time.
            ShuttingDown: as `enter`.
        """
        for _ in range(MAX_TRIES):
            sequence = secrets.token_urlsafe(ID_BYTES)
            if await self.enter(sequence):
                return sequence
        raise Unavailable("no sequence could be started; try again later")

    async def keep(self, sequence: int | str) -> bool:
        """Keep a sequence in the table, and enter it if it is not there. Returns and raises as `enter`."""
        error = await self._send(sequence, 0)
        return not error or (_NOT_IN_TABLE in error and await self.enter(sequence))

    def close(self) -> None:
        """Send nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _send(self, sequence: int | str, flags: int) -> str:
        """Send a request, and return its error or an empty text. Raises ShuttingDown as `enter`."""
        error = await asyncio.get_running_loop().run_in_executor(self._threads, self._exec, sequence, flags)
        if any(text in error for text in _STOPPING):
            raise ShuttingDown()
        return error

    def _exec(self, sequence: int | str, flags: int) -> str:
        pb = self._pb
        request = pb.InferenceRequest(
            model_name=LIVE.name,
            requested_output_names=[LIVE.outputs[0].name],
            inputs=[pb.Tensor(SESSION_TOKEN, np.array([self._secret.encode()], np.object_))],
            preferred_memory=pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU, 0),
            correlation_id=sequence,
            flags=flags,
        )
        try:
            errors = [each.error().message() for each in request.exec(decoupled=True) if each.has_error()]
        except pb.TritonModelException as error:
            return str(error)
        return str(errors[0]) if errors else ""
