"""What `avatar doctor` asks Triton: whether it is there and ready, its models, and whether memory can be shared."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from ._connection import Connection
from ._doctor_checks import OK, PROBLEM, WARNING, Check, Level, local_gpus
from ._errors import from_rpc_error
from ._schema import API_VERSION, AVATAR, DETECT_FACES, FACE_PASTE, LIPSYNC, LIVE, MEL_SPECTROGRAM
from ._shared_memory import PREFIX, GrpcRegionRegistry
from .access import Token
from .region_file import boot_seconds, make_file, remove_name
from .region_pool import UNUSED_REASONS, NewRegion, Registration

NETWORKS = ("s3fd", "wav2lip", "wav2lip_gan", "segmentation")  # with weights; a test compares them to the service's
PUBLIC = tuple(model.name for model in (AVATAR, LIVE, DETECT_FACES, MEL_SPECTROGRAM, *LIPSYNC.values(), FACE_PASTE))
STAND_IN = "stand-in"
REGION_BYTES, REGION_SECONDS = 4096, 60.0
_START = "start it (`make up` in a checkout starts all servers), or give its address by --server"
_LOCAL = ("127.", "localhost", "[::1]", "unix:")


@dataclass(frozen=True)
class _Model:
    """What Triton says of one model; without versions it is not ready."""

    name: str
    versions: tuple[str, ...] = ()
    backend: str = ""
    on_gpu: bool = False
    parameters: Mapping[str, str] | None = None

    @property
    def details(self) -> dict[str, object]:
        given = self.parameters or {}
        named = {name: given[name] for name in ("checkpoint", "precision", "export") if name in given}
        return {"versions": list(self.versions), "backend": self.backend, "gpu": self.on_gpu, **named}


def check_triton(address: str, seconds: float, *, required: bool) -> Iterator[Check]:
    """Yield what one Triton is able to do; `required`: its absence is a problem, otherwise a warning."""
    connection = Connection.connect(address, seconds, 0)
    stub: Any = GRPCInferenceServiceStub(connection.channel)
    try:
        try:
            stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=seconds)
            ready = stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=seconds).ready
            version = stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=seconds).version
            models = [_model(stub, name, seconds) for name in (*PUBLIC, *NETWORKS)]
        except grpc.RpcError as error:
            text = from_rpc_error(error, address).message
            level: Level = PROBLEM if required else WARNING
            yield Check("triton", level, text, _START, {"server": address, "live": False})
            return
        details = {"server": address, "live": True, "ready": ready, "version": version}
        state = "is ready" if ready else "is live, but not ready"
        remedy = "" if ready else "wait until its models are loaded, or look into its log"
        yield Check("triton", OK if ready else PROBLEM, f"{address}, version {version}, {state}", remedy, details)
        yield from _models(models)
        yield _shared_memory(connection, address)
    finally:
        connection.channel.close()


def _model(stub: Any, name: str, seconds: float) -> _Model:  # noqa: ANN401 - gRPC has no types
    """Return what Triton says of a model. Raises `grpc.RpcError` where the server is gone."""
    try:
        if not stub.ModelReady(service_pb2.ModelReadyRequest(name=name), timeout=seconds).ready:
            return _Model(name)
        metadata = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=name), timeout=seconds)
        config = stub.ModelConfig(service_pb2.ModelConfigRequest(name=name), timeout=seconds).config
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
        return _Model(name)  # it was unloaded meanwhile
    on_gpu = any(group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    return _Model(name, tuple(metadata.versions), config.backend or config.platform, on_gpu, parameters)


def _models(models: list[_Model]) -> Iterator[Check]:
    details = {model.name: model.details for model in models}
    missing = [model.name for model in models if not model.versions]
    if missing:
        text = f"not ready: {', '.join(missing)}"
        yield Check("models", PROBLEM, text, "look into Triton's log, or export the models again", details)
    else:
        several = [f"{model.name} {', '.join(model.versions)}" for model in models if len(model.versions) > 1]
        more = f"; several versions of {'; '.join(several)}" if several else ""
        yield Check("models", OK, f"{len(models)} are ready{more}", details=details)
    by_name = {model.name: model for model in models if model.versions}
    yield from _api(by_name)
    networks = [by_name[name] for name in NETWORKS if name in by_name]
    yield from _weights(networks)
    yield from _hardware(networks)


def _api(models: Mapping[str, _Model]) -> Iterator[Check]:
    if AVATAR.name not in models:
        return
    served = (models[AVATAR.name].parameters or {}).get("api_version", "")
    details = {"server": served, "client": API_VERSION}
    if not served:
        remedy = "check whether --server is the Triton of this service"
        yield Check("api", PROBLEM, "the model `avatar` has no API version", remedy, details)
        return
    text = f"the server has version {served} of the tensors, this client {API_VERSION}"
    of_server, of_client = _numbers(served), _numbers(API_VERSION)
    if of_server[:1] != of_client[:1]:
        yield Check("api", PROBLEM, text, "install the client of the server's version", details)
    elif of_server < of_client:
        yield Check("api", WARNING, text, "what is new in the client's version cannot be used with it", details)
    else:
        yield Check("api", OK, text, details=details)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _weights(networks: list[_Model]) -> Iterator[Check]:
    stand_ins = [model.name for model in networks if (model.parameters or {}).get("checkpoint") == STAND_IN]
    details = {"stand_ins": stand_ins}
    if stand_ins:
        text = f"STAND-INS for {', '.join(stand_ins)}: videos are for trials only"
        remedy = "get the real weights (`python -m export weights` in a checkout), and export the models again"
        yield Check("weights", WARNING, text, remedy, details)
    elif networks:
        yield Check("weights", OK, "no network is a stand-in", details=details)


def _hardware(networks: list[_Model]) -> Iterator[Check]:
    if not networks:
        return
    on_gpu = [model.name for model in networks if model.on_gpu]
    backends = ", ".join(sorted({model.backend for model in networks}))
    where = f"a GPU runs {', '.join(on_gpu)}" if on_gpu else "the CPU runs all networks"
    details = {"gpu": on_gpu, "backends": {model.name: model.backend for model in networks}}
    if not on_gpu and local_gpus():
        text = f"{where} ({backends}), and this machine has a GPU"
        yield Check("hardware", WARNING, text, "export the models for the GPU, if Triton runs here", details)
        return
    yield Check("hardware", OK, f"{where} ({backends})", details=details)


def _shared_memory(connection: Connection, address: str) -> Check:
    """Check whether the server maps a file of this machine, by trying it."""
    if sys.platform != "linux":
        text = f"not possible on {sys.platform}; arrays travel by gRPC"
        return Check("memory", OK, text, details={"shared": False, "reason": text})
    try:
        outcome = _register(connection)
    except OSError as error:
        reason = f"arrays travel by gRPC: {error.strerror or error}"
        return Check("memory", WARNING, reason, "make room in /dev/shm", {"shared": False, "reason": str(error)})
    details = {"shared": outcome is Registration.MAPPED, "reason": outcome.name.lower()}
    if outcome is Registration.MAPPED:
        return Check("memory", OK, "large arrays travel through shared memory", details=details)
    _, reason = UNUSED_REASONS.get(outcome, (0, outcome.value))
    text, _, remedy = reason.partition("; ")
    if outcome is Registration.INVISIBLE:
        if not address.startswith(_LOCAL):
            return Check("memory", OK, f"arrays travel by gRPC: {text}", details=details)
        remedy = "let both containers use one /dev/shm"
    return Check("memory", WARNING, f"arrays travel by gRPC: {text}", remedy or "try again", details)


def _register(connection: Connection) -> Registration:
    """Let the server map a small file, and remove all traces of it. Raises OSError."""
    expires_at = boot_seconds() + REGION_SECONDS
    name, file = (f"{PREFIX}{expires_at:.0f}-{secrets.token_hex(16)}" for _ in range(2))
    registry = GrpcRegionRegistry(connection.stub, Token.from_environment())
    make_file(file, REGION_BYTES)
    try:
        return registry.register(NewRegion(name, file, REGION_BYTES, expires_at))
    finally:
        remove_name(file)
        with suppress(grpc.RpcError):
            registry.unregister(name)
