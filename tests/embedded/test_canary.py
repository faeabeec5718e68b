"""Tiny calls: they fit the table of tensors, and every model answers them."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from tritonclient.grpc import service_pb2 as pb

from embedded.canary import TINY_CALLS, GrpcCaller, HttpCaller, Outcome, encode_request
from embedded.progress import Progress, parse
from embedded.server import Triton
from lipsync import tensors

TABLE = {model.name: model for model in tensors.MODELS}
ENSEMBLES = {"detect_faces", "lipsync", "lipsync_gan", "lipsync_clip"}
STREAMS = {model.name for model in tensors.MODELS if model.streams}


def test_every_model_that_is_no_ensemble_and_no_stream_has_a_tiny_call() -> None:
    assert set(TINY_CALLS) == set(TABLE) - ENSEMBLES - STREAMS


@pytest.mark.parametrize("name", TINY_CALLS)
def test_a_tiny_call_fits_the_table_of_tensors(name: str) -> None:
    model = TABLE[name]
    required = [tensor for tensor in model.inputs if not tensor.optional]
    assert [each.name for each in TINY_CALLS[name]] == [tensor.name for tensor in required]
    for sent, tensor in zip(TINY_CALLS[name], required, strict=True):
        assert sent.datatype == tensor.dtype
        shape = sent.shape[1:] if model.max_batch_size else sent.shape
        assert len(shape) == len(tensor.shape)
        assert all(want in (-1, have) for want, have in zip(tensor.shape, shape, strict=True))


@pytest.mark.parametrize("name", TINY_CALLS)
def test_a_request_is_encoded_as_protobuf_does_it(name: str) -> None:
    request = pb.ModelInferRequest.FromString(encode_request(name, TINY_CALLS[name]))
    assert request.model_name == name
    assert [(each.name, each.datatype, tuple(each.shape)) for each in request.inputs] == [
        (each.name, each.datatype, each.shape) for each in TINY_CALLS[name]
    ]
    assert list(request.raw_input_contents) == [each.raw for each in TINY_CALLS[name]]


def test_every_model_answers_by_grpc(triton: Triton) -> None:
    caller = GrpcCaller(triton.grpc_address)
    try:
        assert {model: caller(model, 60) for model in TINY_CALLS} == dict.fromkeys(TINY_CALLS, Outcome.ANSWERED)
    finally:
        caller.close()


@pytest.mark.parametrize("make", [GrpcCaller, HttpCaller])
def test_a_server_that_does_not_listen_gives_no_answer(make: Callable[[str], GrpcCaller | HttpCaller]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        caller = make(f"127.0.0.1:{taken.getsockname()[1]}")
        assert caller("wav2lip", 5) is Outcome.UNKNOWN
        caller.close()


def test_a_finished_request_is_counted_whether_it_failed_or_not() -> None:
    page = """# HELP nv_inference_request_success Number of successful inference requests
nv_inference_request_success{model="wav2lip",version="1"} 33
nv_inference_request_failure{model="wav2lip",reason="BACKEND",version="1"} 2
nv_inference_request_failure{model="wav2lip",reason="OTHER",version="1"} 1
nv_inference_count{model="wav2lip",version="1"} 99
nv_inference_request_success{model="s3fd",version="2"} 1.234567e+06
"""
    assert parse(page) == {"wav2lip": 36, "s3fd": 1_234_567}


def test_progress_of_a_live_server_grows_with_a_call(triton: Triton) -> None:
    caller = GrpcCaller(triton.grpc_address)
    before = Progress(triton.metrics_address).finished("face_nms")
    assert caller("face_nms", 60) is Outcome.ANSWERED
    caller.close()
    assert before is not None
    # the server counts a request after its answer
    for _ in range(100):
        after = Progress(triton.metrics_address).finished("face_nms")
        if after == before + 1:
            break
    assert after == before + 1


def test_progress_of_a_server_without_metrics_is_not_known() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert Progress(f"127.0.0.1:{taken.getsockname()[1]}").finished("wav2lip") is None
