"""The part of Triton that tests of its callers need, in this process; attributes make its calls fail."""

import asyncio
import mmap
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from avatar_client.region_file import FOLDER

INSIDE = "in ensemble 'x', /opt/secret/model.py line 7"


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """One server."""

    def __init__(self) -> None:
        self.status: grpc.StatusCode | None = None
        self.hang = False
        self.up = True
        self.full = False  # whether it rejects inferences because its queues are full
        self.slow = 0.0  # seconds that an inference takes
        self.missing: set[str] = set()  # models that are not ready
        self.unknown: set[str] = set()  # models that are not in the repository
        self.dead: set[str] = set()
        self.silent: set[str] = set()
        self.stand_ins: set[str] = set()
        self.gpu_batches: dict[str, int] = {}  # of the models that run on a GPU
        self.requests: list[Any] = []
        self.shares = False  # whether it has access to our /dev/shm
        self.regions: dict[str, mmap.mmap] = {}
        self.in_use: set[str] = set()
        self.calls: list[tuple[str, float | None]] = []  # each call with its remaining deadline in seconds

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._note("server ready", context)
        await self._fault(context)
        return service_pb2.ServerReadyResponse(ready=self.up)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._note("model ready", context)
        return service_pb2.ModelReadyResponse(ready=request.name not in self.missing)

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._note("config", context)
        if request.name in self.unknown:
            await context.abort(grpc.StatusCode.NOT_FOUND, INSIDE)
        response = service_pb2.ModelConfigResponse()
        if request.name == "segmentation":
            return response  # like a repository that the exporter has not written
        mark = "stand-in" if request.name in self.stand_ins else "real"
        response.config.parameters["checkpoint"].string_value = mark
        if request.name in self.gpu_batches:
            response.config.max_batch_size = self.gpu_batches[request.name]
            response.config.instance_group.add(kind=ModelInstanceGroup.KIND_GPU)
        return response

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        self._note(request.model_name, context)
        await self._fault(context)
        if self.full and request.outputs:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, INSIDE)
        if request.outputs:
            await asyncio.sleep(self.slow)
        if request.model_name in self.dead:
            stub = f"in ensemble 'x', Stub process '{request.model_name}_0_0' is not healthy."
            await context.abort(grpc.StatusCode.INTERNAL, stub)
        if request.model_name in self.silent:
            await asyncio.Event().wait()
        if not request.outputs:  # a tiny call, of which the response is not read
            return service_pb2.ModelInferResponse(model_name=request.model_name)
        if request.model_name.startswith("wav2lip"):  # the faces are the mouths
            return _mouths(request)
        height, width = (*request.inputs[0].shape, 1)[:2]
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        output = response.outputs.add(name="labels", datatype="INT32")
        output.shape.extend([height, width])
        labels = np.full((height, width), 15, np.int32).tobytes()
        if name := region_of(request):
            begin = request.outputs[0].parameters["shared_memory_offset"].int64_param
            self.regions[name][begin : begin + len(labels)] = labels
        else:
            response.raw_output_contents.append(labels)
        return response

    async def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._note("register", context)
        if not self.shares:
            await context.abort(grpc.StatusCode.INTERNAL, f"Unable to open shared memory region: '{request.key}'")
        file = os.open(FOLDER / request.key[1:], os.O_RDWR)
        self.regions[request.name] = mmap.mmap(file, request.byte_size)
        os.close(file)
        return service_pb2.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.name in self.in_use:
            await context.abort(grpc.StatusCode.INTERNAL, "it is currently in use")
        self.regions.pop(request.name, None)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    async def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.SystemSharedMemoryStatusResponse()

    def _note(self, call: str, context: Any) -> None:
        self.calls.append((call, context.time_remaining()))

    async def _fault(self, context: Any) -> None:
        if self.hang:
            await asyncio.Event().wait()
        if self.status:
            await context.abort(self.status, INSIDE)


def _mouths(request: Any) -> Any:
    response = service_pb2.ModelInferResponse(model_name=request.model_name)
    output = response.outputs.add(name="mouth", datatype="UINT8")
    output.shape.extend(request.inputs[0].shape)
    response.raw_output_contents.append(request.raw_input_contents[0])
    return response


def region_of(request: Any) -> str:
    """Return the shared memory region of the request's output, or an empty string."""
    return str(request.outputs[0].parameters["shared_memory_region"].string_param)


@asynccontextmanager
async def serve(servicer: FakeTriton, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serve it at an address within the block; yields host:port. Its end is that of a killed server."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"{address.rpartition(':')[0]}:{port}"
    finally:
        await server.stop(0)
