"""A substitute for grpcurl in the tests, with the flags that the documents use: JSON in, one gRPC call, JSON out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

import grpc
from google.protobuf import json_format, message_factory
from tritonclient.grpc import service_pb2

CALL_SECONDS = 120.0
MAX_RESPONSE_BYTES = 4 << 20  # grpcurl's own default
SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def main() -> None:
    """Make one call of `package.Service/Method`."""
    parser = argparse.ArgumentParser(prog="grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-import-path", required=True)
    parser.add_argument("-proto", choices=[service_pb2.DESCRIPTOR.name], required=True)
    parser.add_argument("-max-msg-sz", type=int, default=MAX_RESPONSE_BYTES)
    parser.add_argument("-d", default="")
    parser.add_argument("address")
    parser.add_argument("method")
    options = parser.parse_args()
    service, name = options.method.split("/")
    assert service == SERVICE.full_name
    method = SERVICE.methods_by_name[name]
    request_type, response_type = (
        message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type)
    )
    text = sys.stdin.read() if options.d == "@" else options.d
    requests = [json_format.Parse(each, request_type()) for each in json_objects(text)]
    call = (f"/{options.method}", request_type.SerializeToString, response_type.FromString)
    with grpc.insecure_channel(options.address, [("grpc.max_receive_message_length", options.max_msg_sz)]) as channel:
        if name == "ModelStreamInfer":
            responses = channel.stream_stream(*call)(iter(requests), timeout=CALL_SECONDS)
        else:
            request = requests[0] if requests else request_type()
            responses = iter([channel.unary_unary(*call)(request, timeout=CALL_SECONDS)])
        for response in responses:
            print(json_format.MessageToJson(response))


def json_objects(text: str) -> Iterator[str]:
    """Yield the JSON objects of a text that contains one after another."""
    while text := text.strip():
        _, end = json.JSONDecoder().raw_decode(text)
        yield text[:end]
        text = text[end:]


if __name__ == "__main__":
    main()
