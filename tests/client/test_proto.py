"""The files of Triton's protocol are the originals, and say what the server says."""

import hashlib
import re
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2 as pb

FOLDER = Path(__file__).parents[2] / "client" / "proto"
# of protobuf/NAME.proto in triton-inference-server/common, branch r24.10
ORIGINALS = {
    "grpc_service": "a2cca0548e8b647f35c2d7d4aaee24d711fa786150dd5e2437c6830843301462",
    "model_config": "34e1efdae79efe78986ad72b94684d9b45be7c412e92d2532a8b90525dd07ff5",
}
ADDED = '\n// Added in this copy; see README.md.\noption go_package = "./inference;inference";\n'


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_file_is_the_original_with_a_package_for_go(name: str) -> None:
    text = (FOLDER / f"{name}.proto").read_text()
    assert text.count(ADDED) == 1
    assert hashlib.sha256(text.replace(ADDED, "").encode()).hexdigest() == ORIGINALS[name]
    assert "Redistribution and use in source and binary forms" in text


def test_the_files_are_those_that_a_client_needs_with_their_license() -> None:
    names = {pb.DESCRIPTOR.name, *(each.name for each in pb.DESCRIPTOR.dependencies)}
    assert names == {path.name for path in FOLDER.glob("*.proto")}
    assert "Redistribution and use in source and binary forms" in (FOLDER / "LICENSE").read_text()
    assert "r24.10" in (FOLDER / "README.md").read_text()


def test_every_call_and_the_fields_of_a_request_are_those_of_tritonclient() -> None:
    text = (FOLDER / "grpc_service.proto").read_text()
    calls = re.findall(r"^ *rpc (\w+)", text, re.M)
    known = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert {"ModelInfer", "ModelStreamInfer", "ServerReady"} <= set(calls) <= set(known)
    for message in ("ModelInferRequest", "ModelInferResponse", "ModelStreamInferResponse"):
        (body,) = re.findall(rf"^message {message}\n\{{\n(.*?)^\}}", text, re.M | re.S)
        numbers = {name: int(number) for name, number in re.findall(r"^  \S.* (\w+) = (\d+);", body, re.M)}
        fields = pb.DESCRIPTOR.message_types_by_name[message].fields_by_name
        assert numbers.items() <= {name: field.number for name, field in fields.items()}.items()
        assert len(numbers) >= 2
