"""What Envoy lets through to a server that records the bytes it gets. No Triton takes part."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tritonclient.grpc import service_pb2 as pb

from tests.support.envoy import CLIENT, KEY, Envoy, envoy_process
from tests.support.tls_authority import Authority

SERVICE = "/inference.GRPCInferenceService/"
NAME = b"classification"
SECONDS = 30.0


class Recorder(grpc.GenericRpcHandler):
    """Answers every method, and keeps the metadata and the messages of the calls."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.messages: list[bytes] = []
        self.unloaded = 0  # calls that are still to be answered as by a server that is being stopped

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01")  # SERVING
        self.metadata = {key: str(value) for key, value in details.invocation_metadata}
        self.messages = []
        return grpc.stream_stream_rpc_method_handler(self._record)

    def _record(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        if self.unloaded:
            self.unloaded -= 1
            context.abort(grpc.StatusCode.NOT_FOUND, "unloaded")
        for request in requests:
            self.messages.append(request)
            yield b""


@pytest.fixture(scope="module")
def recorder() -> Iterator[tuple[Recorder, str]]:
    made = Recorder()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[made], options=[("grpc.max_receive_message_length", -1)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"127.0.0.1:{port}"
    server.stop(0).wait(SECONDS)


@pytest.fixture(scope="module")
def envoy(recorder: tuple[Recorder, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    with envoy_process(tmp_path_factory.mktemp("envoy"), [recorder[1]]) as running:
        yield running


def send(envoy: Envoy, method: str, *messages: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> None:
    """Send messages on one stream and read as many answers."""
    with grpc.insecure_channel(envoy.address) as channel:
        call: Callable[..., Any] = channel.stream_stream(SERVICE + method)
        list(call(iter(messages), metadata=(*envoy.metadata, *metadata), timeout=SECONDS))


def infer_request(name: str = "classification", padding: int = 0) -> bytes:
    request = pb.ModelInferRequest(model_name="avatar", id="x" * padding)
    output = request.outputs.add(name="summary")
    output.parameters[name].int64_param = 1
    return bytes(request.SerializeToString())


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer", "ModelInfer?x=1"])
def test_the_parameter_classification_arrives_under_a_name_that_triton_does_not_know(
    envoy: Envoy, recorder: tuple[Recorder, str], method: str
) -> None:
    send(envoy, method, infer_request())
    assert recorder[0].messages == [infer_request("classificatioN")]


def test_it_is_found_wherever_the_network_divides_a_message_and_however_its_length_is_written(
    envoy: Envoy, recorder: tuple[Recorder, str]
) -> None:
    order = random.Random(1)
    lengths = [b"\x0e", b"\x8e\x00", b"\x8e\x80\x80\x80\x80\x80\x80\x80\x80\x00"]
    sent = [
        b"".join(b"\x0a" + order.choice(lengths) + NAME + b"." * order.randrange(9) for _ in range(9000))
        for _ in range(3)
    ]
    send(envoy, "ModelStreamInfer", *sent)
    assert recorder[0].messages == [message.replace(NAME, b"classificatioN") for message in sent]


def test_the_same_word_in_a_file_of_a_caller_is_left_alone(envoy: Envoy, recorder: tuple[Recorder, str]) -> None:
    message = b"tEXtSubject\0classification of birds, \x0fclassification, \x8e\x01classification" * 1000
    send(envoy, "ModelStreamInfer", message)
    assert recorder[0].messages == [message]


def test_neither_the_metadata_that_crashes_triton_nor_a_token_nor_the_key_reaches_it(
    envoy: Envoy, recorder: tuple[Recorder, str]
) -> None:
    given = (
        ("triton_grpc_error", "true"),
        ("triton-grpc-protocol-avatar-token", "guessed"),
        ("x-avatar-client", "somebody-else"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    )
    send(envoy, "ModelStreamInfer", b"", metadata=given)
    received = recorder[0].metadata
    assert not {"triton_grpc_error", "triton-grpc-protocol-avatar-token", "authorization"} & set(received)
    assert received["x-avatar-client"] == CLIENT
    assert received["traceparent"] == given[3][1]


@pytest.mark.parametrize(
    "metadata", [(), (("authorization", "Bearer another-key"),), (("authorization", f"Bearer {KEY[:-1]}"),)]
)
def test_a_call_without_a_valid_key_is_unauthenticated(envoy: Envoy, metadata: tuple[tuple[str, str], ...]) -> None:
    with grpc.insecure_channel(envoy.address) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(f"{SERVICE}ServerReady")(b"", metadata=metadata, timeout=SECONDS)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "method",
    [
        *(
            method
            for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
            if re.search("SharedMemory|Repository|Trace|Log|Statistics", method)
        ),
        "Unknown",
        "%2e%2e/inference.GRPCInferenceService/RepositoryIndex",
        "ServerReady/../RepositoryIndex",
    ],
)
def test_the_side_doors_are_closed_with_a_key_too(envoy: Envoy, recorder: tuple[Recorder, str], method: str) -> None:
    recorder[0].metadata = {}
    with grpc.insecure_channel(envoy.address) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(SERVICE + method)(b"", metadata=envoy.metadata, timeout=SECONDS)
    assert error.value.code() in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INTERNAL}
    assert not recorder[0].metadata, "the call reached the server"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_refused(envoy: Envoy, compression: grpc.Compression) -> None:
    with grpc.insecure_channel(envoy.address, compression=compression) as channel:
        call = channel.unary_unary(f"{SERVICE}ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            call(b"." * 5000, metadata=envoy.metadata, timeout=SECONDS)
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_call_of_a_single_model_is_limited_in_size_and_a_stream_is_not(
    envoy: Envoy, recorder: tuple[Recorder, str]
) -> None:
    large = bytes((64 << 20) + 1)
    with pytest.raises(grpc.RpcError) as error:
        send(envoy, "ModelInfer", large)
    assert error.value.code() in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.RESOURCE_EXHAUSTED}
    send(envoy, "ModelStreamInfer", large)
    assert [len(message) for message in recorder[0].messages] == [len(large)]


def test_a_call_for_a_model_that_a_stopping_server_has_unloaded_is_made_again(
    envoy: Envoy, recorder: tuple[Recorder, str]
) -> None:
    recorder[0].unloaded = 1
    send(envoy, "ModelInfer", b"again")
    assert recorder[0].messages == [b"again"]
    recorder[0].unloaded = 1
    with pytest.raises(grpc.RpcError) as error:
        send(envoy, "ModelStreamInfer", b"once")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_key_that_calls_too_often_is_refused_for_a_while(envoy: Envoy) -> None:
    with grpc.insecure_channel(envoy.address) as channel:
        call = channel.unary_unary(f"{SERVICE}ServerLive")
        calls = [call.future(b"", metadata=envoy.metadata, timeout=SECONDS) for _ in range(3000)]
        codes = {each.code() for each in calls}
        assert codes == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        # the other tests use the same key
        envoy.wait_for(lambda: call.future(b"", metadata=envoy.metadata).code() is grpc.StatusCode.OK)


def test_with_a_certificate_it_speaks_tls(recorder: tuple[Recorder, str], tmp_path: Path) -> None:
    authority = Authority.make()
    authority.server_context("localhost", tmp_path)
    for name in ("tls.crt", "tls.key"):
        shutil.copy(tmp_path / "localhost.pem", tmp_path / name)
    with envoy_process(tmp_path, [recorder[1]], tls=True) as envoy:
        credentials = grpc.ssl_channel_credentials(authority.certificate.public_bytes(Encoding.PEM))
        address = f"localhost:{envoy.address.rpartition(':')[2]}"
        with grpc.secure_channel(address, credentials) as channel:
            channel.unary_unary(f"{SERVICE}ServerReady")(b"", metadata=envoy.metadata, timeout=SECONDS)
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(f"{SERVICE}ServerReady")(b"", metadata=envoy.metadata, timeout=SECONDS)
