"""Calls of perf_analyzer, and a short measurement of every public model on a live server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avatar_client.access import TOKEN_VARIABLE, Token
from bench.paths import REQUEST_DATA
from bench.triton import perf_analyzer, request_data
from bench.triton.perf_analyzer import AnalyzerError, Load, PerfMetrics, Target
from bench.triton.request_data import Inputs
from embedded.server import Triton
from lipsync.tensors import AVATAR, DETECT_FACES, FACE_NMS, LIVE, MODELS, WAV2LIP, Model
from tests.support.triton_calls import caller

ROOT = Path(__file__).resolve().parents[3]
TOKEN = Token("a-token-of-this-test")
ALWAYS, SLOW = (WAV2LIP, AVATAR, LIVE), pytest.mark.slow
SHM = Path("/dev/shm")  # noqa: S108
REPORT = """\
Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,\
Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency
2,94.9534,8,4733,6357,108,8845,798,3,16906,25370,37503,100610
"""
STREAMED = REPORT.replace("Second,", "Second,Response Throughput,").replace("94.9534,", "94.9534,1234.5,")


@pytest.fixture(scope="module")
def inputs() -> dict[str, Inputs]:
    """The committed files by model."""
    return {model.name: request_data.read(_data(model), model) for model in MODELS}


def _data(model: Model) -> Path:
    return REQUEST_DATA / request_data.file_name(model)


def _value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def _arguments(load: Load, steps: int = 1) -> list[str]:
    return perf_analyzer.arguments(
        Path("perf_analyzer"), load, Target("box:8001", TOKEN), Path("in.json"), Path("out.csv"), steps
    )


def _target(triton: Triton) -> Target:
    return Target(triton.grpc_address, Token(triton.token))


def _remaining_regions(triton: Triton, inputs: Inputs) -> set[str]:
    """Return this run's shared memory regions that are still registered at the server or exist on this machine."""
    names = set(perf_analyzer.regions(inputs))
    # the lock is needed because the regions of another run have the same names
    with perf_analyzer.exclusive_shared_memory(), caller(triton.grpc_address) as call:
        known = call.client.get_system_shared_memory_status(headers=triton.admin_headers).regions
        return names & {*known, *(path.name for path in SHM.iterdir())}


def test_the_command_line_names_the_load() -> None:
    argv = _arguments(Load(WAV2LIP, callers=4, batch=8))
    expected = {"-m": "wav2lip", "-u": "box:8001", "-i": "grpc", "-b": "8", "--concurrency-range": "4"}
    expected |= {"--input-data": "in.json", "-f": "out.csv", "--shared-memory": "none"}
    assert {flag: _value(argv, flag) for flag in expected} == expected
    assert not {"--output-shared-memory-size", "--streaming", "--sequence-id-range"} & {*argv}


def test_a_streaming_model_is_called_with_streams_and_each_sequence_has_its_own_id() -> None:
    assert "--streaming" in _arguments(Load(AVATAR, callers=1))
    assert "--sequence-id-range" not in _arguments(Load(AVATAR, callers=1))
    argv = _arguments(Load(LIVE, callers=1))
    assert "--streaming" in argv
    assert 1 < int(_value(argv, "--sequence-id-range")) < 1 << 31


def test_outputs_in_shared_memory_get_a_size() -> None:
    argv = _arguments(Load(WAV2LIP, callers=1, memory="system"))
    assert _value(argv, "--shared-memory") == "system"
    assert int(_value(argv, "--output-shared-memory-size")) == perf_analyzer.LARGEST_OUTPUT


def test_the_token_is_sent_only_where_shared_memory_is_used() -> None:
    header = "triton-grpc-protocol-avatar-token:a-token-of-this-test"
    assert _value(_arguments(Load(WAV2LIP, callers=4, memory="system")), "-H") == header
    assert header not in _arguments(Load(WAV2LIP, callers=4))


@pytest.mark.parametrize(("callers", "requests"), [(1, 10), (8, 16)])
def test_a_window_holds_every_caller_twice(callers: int, requests: int) -> None:
    argv = _arguments(Load(WAV2LIP, callers=callers, requests=10))
    assert _value(argv, "--measurement-request-count") == str(requests)


def test_a_window_holds_a_whole_sequence_of_every_caller() -> None:
    assert _value(_arguments(Load(LIVE, callers=4), steps=27), "--measurement-request-count") == "108"


def test_a_report_is_read_in_milliseconds() -> None:
    metrics = perf_analyzer.parse(REPORT)
    expected = PerfMetrics(94.9534, 16.906, 25.37, 37.503, 100.61, network_ms=4.744, queue_ms=6.357, compute_ms=9.751)
    assert vars(metrics) == pytest.approx(vars(expected))


def test_a_report_of_a_streaming_model_has_the_response_rate() -> None:
    assert perf_analyzer.parse(REPORT).responses_per_second is None
    metrics = perf_analyzer.parse(STREAMED)
    assert (metrics.inferences_per_second, metrics.responses_per_second) == (94.9534, 1234.5)


@pytest.mark.parametrize("report", ["", REPORT.splitlines()[0], "Concurrency\n1\n", REPORT.replace("94.9534", "many")])
def test_a_file_that_is_not_a_report_is_an_error(report: str) -> None:
    with pytest.raises(AnalyzerError, match="report"):
        perf_analyzer.parse(report)


@pytest.mark.parametrize(
    ("url", "local"),
    [("127.0.0.1:8001", True), ("localhost:8001", True), ("[::1]:8001", True), ("triton.example:8001", False)],
)
def test_a_server_on_this_machine_is_reached_without_a_proxy(url: str, local: bool) -> None:
    assert perf_analyzer.is_local(url) is local
    assert ("no_grpc_proxy" in perf_analyzer.environment(url, {"http_proxy": "http://proxy.example"})) is local


def test_a_missing_program_is_named_with_the_way_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(AnalyzerError, match=r"^cannot run .*perf_analyzer: .*`make setup` installs it"):
        perf_analyzer.run([str(tmp_path / "perf_analyzer")], os.environ)


def test_the_error_is_the_message_on_stderr() -> None:
    with pytest.raises(AnalyzerError, match=r"^no such model$"):
        perf_analyzer.run([sys.executable, "-c", "import sys; sys.exit('error: no such model')"], os.environ)


def test_the_message_of_the_server_is_preferred() -> None:
    stderr = "Failed to retrieve results.\nThread [0] had error: 400 pads: four numbers expected\n"
    with pytest.raises(AnalyzerError, match=r"^400 pads: four numbers expected$"):
        perf_analyzer.run([sys.executable, "-c", f"import sys; sys.exit({stderr!r})"], os.environ)


def test_a_run_over_the_time_limit_is_stopped() -> None:
    with pytest.raises(AnalyzerError, match=r"not finished after 0\.5 s"):
        perf_analyzer.run([sys.executable, "-c", "import time; time.sleep(600)"], os.environ, limit=0.5)


@pytest.mark.parametrize(
    ("model", "memory"),
    [
        *(
            # a network and both streaming models: each takes three seconds, and test_sweep.py has a Python model
            pytest.param(model, perf_analyzer.supported_memory(model)[-1], marks=() if model in ALWAYS else SLOW)
            for model in MODELS
            if "gan" not in model.name
        ),
        pytest.param(DETECT_FACES, "none", marks=SLOW),
        pytest.param(WAV2LIP, "none", marks=SLOW),  # the larger batch below is sent in the same way
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_every_kind_of_model_is_measured_with_the_committed_inputs(
    triton: Triton, inputs: dict[str, Inputs], model: Model, memory: perf_analyzer.Memory
) -> None:
    load = Load(model, callers=1, memory=memory, requests=1)
    before = len(triton.log_path.read_text("utf-8", "replace"))
    metrics = perf_analyzer.measure(load, _target(triton), inputs[model.name], _data(model))
    assert metrics.inferences_per_second > 0
    assert metrics.p99_ms >= metrics.p50_ms > 0
    assert _remaining_regions(triton, inputs[model.name]) == set()
    if model.streams:
        assert metrics.responses_per_second is not None
        assert metrics.responses_per_second > metrics.inferences_per_second
        log = triton.log_path.read_text("utf-8", "replace")[before:]
        assert "rejected" not in log
        assert (f"{inputs[model.name].frames} frames in" if model is AVATAR else "session ended: {'frames': 27,") in log


def test_a_batch_may_be_larger_than_the_file_has_requests(triton: Triton, inputs: dict[str, Inputs]) -> None:
    rows = len(inputs[WAV2LIP.name].requests) + 1
    load = Load(WAV2LIP, callers=1, batch=rows, requests=1)
    perf_analyzer.measure(load, _target(triton), inputs[WAV2LIP.name], _data(WAV2LIP))
    with caller(triton.grpc_address) as call:
        assert rows in call.batches(WAV2LIP.name)


def test_a_model_that_the_server_lacks_is_an_error_with_its_message(triton: Triton, inputs: dict[str, Inputs]) -> None:
    other = Model("other", "", FACE_NMS.inputs, FACE_NMS.outputs)
    with pytest.raises(AnalyzerError, match="unknown model"):
        perf_analyzer.measure(Load(other, 1), _target(triton), inputs[FACE_NMS.name], _data(FACE_NMS))


def test_an_interrupted_measurement_leaves_nothing_and_the_next_one_runs(
    triton: Triton, inputs: dict[str, Inputs]
) -> None:
    script = (
        # a shell's `&` may have started this process with SIGINT ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from avatar_client.access import Token; "
        "from bench.paths import REQUEST_DATA; "
        "from bench.triton import perf_analyzer as analyzer, request_data; "
        "from lipsync.tensors import WAV2LIP as model; "
        "data = REQUEST_DATA / request_data.file_name(model); inputs = request_data.read(data, model); "
        "load = analyzer.Load(model, 2, 'system', requests=100000); "
        f"target = analyzer.Target('{triton.grpc_address}', Token.from_environment()); "
        "analyzer.measure(load, target, inputs, data)"
    )
    argv, env = [sys.executable, "-c", script], {**os.environ, TOKEN_VARIABLE: triton.token}
    with subprocess.Popen(argv, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as child:
        try:
            deadline = time.monotonic() + 180
            while not (SHM / WAV2LIP.outputs[0].name).exists():
                assert time.monotonic() < deadline and child.poll() is None
                time.sleep(0.05)
            time.sleep(1)  # requests in flight
            child.send_signal(signal.SIGINT)
            assert "KeyboardInterrupt" in child.communicate(timeout=180)[1]
        finally:
            child.kill()
    assert _remaining_regions(triton, inputs[WAV2LIP.name]) == set()
    load = Load(WAV2LIP, callers=1, memory="system", requests=1)
    perf_analyzer.measure(load, _target(triton), inputs[WAV2LIP.name], _data(WAV2LIP))
