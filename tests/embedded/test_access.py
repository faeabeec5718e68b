"""What a caller without the token can do on a live server: inference, and nothing else that matters."""

from __future__ import annotations

import http.client
import mmap
import secrets
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from avatar.inference.grpc_client import GrpcInferenceClient
from avatar_client import AvatarClient
from avatar_client.access import HEADER
from avatar_client.region_file import FOLDER
from embedded import access, private_memory
from embedded.errors import EmbeddedError
from embedded.server import Triton
from tests.support import tiny_models

FACE = np.random.default_rng(0).integers(0, 256, (1, 160, 200, 3), np.uint8)
OTHERS = 0o077  # permission bits of everybody but the owner


@pytest.fixture
def stranger(triton: Triton) -> Iterator[InferenceServerClient]:
    """A caller without the token."""
    client = InferenceServerClient(triton.grpc_address)
    yield client
    client.close()


@pytest.fixture
def region(triton: Triton) -> Iterator[tuple[str, mmap.mmap]]:
    """A registered region that holds another caller's face."""
    name, file = (f"region-of-a-test-{secrets.token_hex(16)}" for _ in range(2))
    owner = InferenceServerClient(triton.grpc_address)
    path = FOLDER / file
    path.write_bytes(FACE.tobytes())
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), FACE.nbytes) as memory:
        owner.register_system_shared_memory(name, f"/{file}", FACE.nbytes, headers=triton.admin_headers)
        path.unlink()
        yield name, memory
        owner.unregister_system_shared_memory(name, headers=triton.admin_headers)
        owner.close()


def crop_of(region: str, client: InferenceServerClient) -> np.ndarray:
    """Return the face that the model `face_crop` cuts out of a region."""
    frames = InferInput("frames", list(FACE.shape), "UINT8")
    frames.set_shared_memory(region, FACE.nbytes)
    boxes = InferInput("boxes", [1, 4], "INT32")
    boxes.set_data_from_numpy(np.array([[0, 0, 96, 96]], np.int32))
    result = client.infer("face_crop", [frames, boxes], client_timeout=60).as_numpy("faces")
    assert result is not None
    return np.asarray(result)


FORBIDDEN: dict[str, Callable[[InferenceServerClient], Any]] = {
    "list regions": lambda client: client.get_system_shared_memory_status(),
    "list CUDA regions": lambda client: client.get_cuda_shared_memory_status(),
    "register a region": lambda client: client.register_system_shared_memory("stranger", "/stranger", 1),
    "register a CUDA region": lambda client: client.register_cuda_shared_memory("stranger", b"", 0, 1),
    "unregister every region": lambda client: client.unregister_system_shared_memory(),
    "unregister every CUDA region": lambda client: client.unregister_cuda_shared_memory(),
    "list the repository": lambda client: client.get_model_repository_index(),
    "load a model": lambda client: client.load_model("face_crop"),
    "unload a model": lambda client: client.unload_model("face_crop"),
    "read the trace settings": lambda client: client.get_trace_settings(),
    "change the trace settings": lambda client: client.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
    "read the log settings": lambda client: client.get_log_settings(),
    "change the log settings": lambda client: client.update_log_settings({"log_verbose_level": 9}),
}
OPEN: dict[str, Callable[[InferenceServerClient], Any]] = {
    "server ready": lambda client: client.is_server_ready(),
    "model ready": lambda client: client.is_model_ready("face_crop"),
    "server metadata": lambda client: client.get_server_metadata(),
    "model metadata": lambda client: client.get_model_metadata("face_crop"),
    "model config": lambda client: client.get_model_config("face_crop"),
    "statistics": lambda client: client.get_inference_statistics("face_crop"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_stranger_cannot(what: str, stranger: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="This protocol is restricted"):
        FORBIDDEN[what](stranger)


@pytest.mark.parametrize("wrong", ["", "x", "Bearer", "0" * 43])
def test_another_token_opens_nothing(triton: Triton, wrong: str) -> None:
    with grpc.insecure_channel(triton.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for metadata in ([(access.HEADER, wrong)], [(access.KEY, triton.token)], [("authorization", triton.token)]):
            with pytest.raises(grpc.RpcError, match="This protocol is restricted"):
                stub.SystemSharedMemoryStatus(service_pb2.SystemSharedMemoryStatusRequest(), metadata=metadata)


@pytest.mark.parametrize("what", OPEN)
def test_a_stranger_can_ask_for(what: str, stranger: InferenceServerClient) -> None:
    assert OPEN[what](stranger)


def test_the_owner_of_the_token_can_list_register_and_unregister(
    triton: Triton, region: tuple[str, mmap.mmap], stranger: InferenceServerClient
) -> None:
    assert region[0] in stranger.get_system_shared_memory_status(headers=triton.admin_headers).regions


def test_a_stranger_reads_no_frame_without_the_name_of_its_region(
    region: tuple[str, mmap.mmap], stranger: InferenceServerClient
) -> None:
    name, _ = region
    # A caller who has the name can read. It has 128 random bits, and no answer of the server shows it.
    np.testing.assert_array_equal(crop_of(name, stranger)[0], FACE[0, :96, :96])
    for guess in (name[:-1], name.upper(), name[::-1], "*", "", "region-of-a-test-"):
        with pytest.raises(InferenceServerException) as rejected:
            crop_of(guess, stranger)
        assert name not in str(rejected.value)


def test_a_stranger_cannot_overwrite_a_region_whose_name_that_caller_does_not_have(
    region: tuple[str, mmap.mmap], stranger: InferenceServerClient
) -> None:
    name, memory = region
    frames = InferInput("frames", list(FACE.shape), "UINT8")
    frames.set_data_from_numpy(np.zeros_like(FACE))
    boxes = InferInput("boxes", [1, 4], "INT32")
    boxes.set_data_from_numpy(np.array([[0, 0, 96, 96]], np.int32))
    output = InferRequestedOutput("faces")
    output.set_shared_memory(name[:-1], 96 * 96 * 3)
    with pytest.raises(InferenceServerException):
        stranger.infer("face_crop", [frames, boxes], outputs=[output], client_timeout=60)
    assert memory[:] == FACE.tobytes()


async def test_who_watches_dev_shm_learns_no_name_of_a_region(triton: Triton, stranger: InferenceServerClient) -> None:
    before = set(stranger.get_system_shared_memory_status(headers=triton.admin_headers).regions)
    models = GrpcInferenceClient(triton.grpc_address, token=triton.token)
    try:
        await models.segment(FACE[0])
        known = stranger.get_system_shared_memory_status(headers=triton.admin_headers).regions
        (ours,) = set(known) - before
        key = known[ours].key  # the name of the file, which existed for a moment
        assert key.removeprefix("/") != ours
        with pytest.raises(InferenceServerException, match="Unable to find shared memory region"):
            crop_of(key.removeprefix("/"), stranger)
    finally:
        await models.close()


def test_no_other_user_can_open_what_the_server_has_in_dev_shm(triton: Triton) -> None:
    maps = Path(f"/proc/{triton.pid}/maps").read_text()
    regions = [path for path in FOLDER.iterdir() if str(path) in maps]
    assert len(regions) > 5  # one for each Python model, and more
    for path in regions:
        assert path.name.startswith("triton_python_backend_shm_region_")
        assert not stat.S_IMODE(path.stat().st_mode) & OTHERS, path


async def test_clients_without_a_token_get_the_same_results(triton: Triton) -> None:
    models = GrpcInferenceClient(triton.grpc_address)
    try:
        want = await models.detect_faces(FACE)
    finally:
        await models.close()
    for token in ("", triton.token):
        with AvatarClient(triton.grpc_address, token=token) as client:
            for ours, theirs in zip(client.detect_faces(FACE), want, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_http_requires_the_token_too(triton: Triton) -> None:
    for method, path in (
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/v2/systemsharedmemory/region/x/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("POST", "/v2/systemsharedmemory/unregister"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/face_crop/load"),
        ("POST", "/v2/repository/models/face_crop/unload"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/models/face_crop/trace/setting"),
        ("POST", "/v2/models/face_crop/trace/setting"),
        ("GET", "/v2/logging"),
    ):
        assert _status(triton.http_address, method, path, {}) == 403, path
    assert _status(triton.http_address, "GET", "/v2/logging", {access.KEY: triton.token}) == 200
    assert _status(triton.http_address, "GET", "/v2/models/face_crop/config", {}) == 200


def _status(address: str, method: str, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_token_is_neither_in_the_log_nor_in_the_list_of_processes(triton: Triton) -> None:
    assert triton.token not in triton.log_path.read_text()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            assert triton.token not in (process / "cmdline").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_models_do_not_get_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = access.make_token()
    monkeypatch.setenv(access.TOKEN_VARIABLE, token)
    models = tmp_path / "models"
    tiny_models.add_arithmetic(models)
    with Triton(models, token=token) as server:
        assert server.token == token
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
        assert token.encode() not in environment
        assert access.TOKEN_VARIABLE.encode() not in environment


def test_http_is_off_by_default_and_each_start_has_another_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # this environment would open Vertex AI's endpoint, which leads to all others
    monkeypatch.setenv("AIP_MODE", "PREDICTION")
    models = tmp_path / "models"
    tiny_models.add_arithmetic(models)
    server = Triton(models, start_timeout=60)
    tokens = set()
    for _ in range(2):
        with server:
            tokens.add(server.token)
            with pytest.raises(EmbeddedError, match="HTTP is off"):
                _ = server.http_address
            ports = {server.grpc_address, server.metrics_address}
            assert _listening(server.pid) == {int(address.rpartition(":")[2]) for address in ports}
    assert len(tokens) == 2


def _listening(pid: int) -> set[int]:
    """Return the TCP ports on which a process listens."""
    sockets = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


@pytest.mark.parametrize("token", ["", "short", "with a space in it", "with:colon=and-equals", "ä" * 20, "x" * 300])
def test_a_token_that_would_not_work_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    with pytest.raises(ValueError, match="AVATAR_TRITON_TOKEN: 16 to 256") as rejected:
        Triton(tmp_path, token=token)
    assert not token or token not in str(rejected.value)


def test_the_client_sends_the_header_that_the_server_expects() -> None:
    assert HEADER == access.HEADER


def test_the_token_file_is_for_its_owner_only_and_keeps_the_token_of_a_later_server(tmp_path: Path) -> None:
    file, target = tmp_path / "build" / "triton.token", tmp_path / "target"
    file.parent.mkdir()
    target.write_text("not ours")
    file.symlink_to(target)  # a link is replaced, not followed
    access.write_token(file, "token-of-one-server")
    assert not stat.S_IMODE(file.lstat().st_mode) & OTHERS
    assert (file.read_text(), target.read_text()) == ("token-of-one-server\n", "not ours")
    access.write_token(file, "token-of-a-later-one")
    access.remove_token(file, "token-of-one-server")
    assert file.exists()
    access.remove_token(file, "token-of-a-later-one")
    access.remove_token(file, "token-of-a-later-one")
    assert [path.name for path in file.parent.iterdir()] == []


def test_only_the_mode_of_shared_memory_is_kept_private(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "for n, mode in enumerate((0o644, 0o640, 0o755)):\n"
        "    file = os.open(f'{sys.argv[1]}/{n}', os.O_CREAT | os.O_RDWR, 0o644)\n"
        "    os.fchmod(file, mode)\n"
        "os.chmod(f'{sys.argv[1]}/2', 0o644)\n"
    )
    launcher = [sys.executable, "-I", "-S", private_memory.__file__, sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(launcher, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "012"]
    assert modes == [0o600, 0o640, 0o644]  # the first by the filter; the last by chmod, which it leaves alone


def test_hiding_an_argument_leaves_the_process_alone() -> None:
    secret = access.make_token()
    command = [sys.executable, "-c", "print('started', flush=True); input()", f"--token={secret}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert access.hide_argument(child.pid, secret)
        arguments = Path(f"/proc/{child.pid}/cmdline").read_text().split("\0")
        assert arguments[-2] == f"--token={'*' * len(secret)}"
        assert arguments[:-2] == command[:-1]
        child.communicate("\n", timeout=60)
        assert child.returncode == 0
