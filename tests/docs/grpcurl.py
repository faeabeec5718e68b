"""Stands in for grpcurl in the tests, with the flags that docs/grpc.md uses: JSON in, one gRPC call, JSON out."""

import argparse
import json
import sys
from collections.abc import Iterator

import grpc
from google.protobuf import json_format, message_factory
from tritonclient.grpc import service_pb2

SECONDS = 120.0
LARGEST = 4 << 20  # bytes of an answer, grpcurl's own default
SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def main() -> None:
    """One call of `package.Service/Method`."""
    parser = argparse.ArgumentParser(prog="grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-import-path", required=True)
    parser.add_argument("-proto", choices=[service_pb2.DESCRIPTOR.name], required=True)
    parser.add_argument("-max-msg-sz", type=int, default=LARGEST)
    parser.add_argument("-d", default="")
    parser.add_argument("address")
    parser.add_argument("method")
    options = parser.parse_args()
    service, name = options.method.split("/")
    method = SERVICE.methods_by_name[name]
    asked, answer = (message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type))
    assert service == SERVICE.full_name
    text = sys.stdin.read() if options.d == "@" else options.d
    messages = [json_format.Parse(each, asked()) for each in objects(text)]
    ways = (f"/{options.method}", asked.SerializeToString, answer.FromString)
    with grpc.insecure_channel(options.address, [("grpc.max_receive_message_length", options.max_msg_sz)]) as channel:
        if name == "ModelStreamInfer":
            answers = channel.stream_stream(*ways)(iter(messages), timeout=SECONDS)
        else:
            answers = iter([channel.unary_unary(*ways)(messages[0] if messages else asked(), timeout=SECONDS)])
        for each in answers:
            print(json_format.MessageToJson(each))


def objects(text: str) -> Iterator[str]:
    """The JSON objects that stand behind each other in a text."""
    while text := text.strip():
        _, end = json.JSONDecoder().raw_decode(text)
        yield text[:end]
        text = text[end:]


if __name__ == "__main__":
    main()
