"""The steps of a run, the most important first: each yields rows of results."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

from export.variants import Format
from lipsync.tensors import WAV2LIP

from ..cli import FAILURES
from ..triton import live_latency
from ..triton.perf_analyzer import is_local
from ..weights import timing_networks
from . import bare, callers, clips, golden, machine, plan, repository
from .callers import Load
from .card import CardMonitor
from .errors import LeftOut
from .rows import Row
from .serving import served, server_log
from .settings import GIVEN, Settings
from .transport import Memory, Server, connect

COMPILE_SECONDS = 420.0  # for the start of a server that compiles


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: for `--steps`.
        title: what is measured.
        seconds: limit, if the whole run has that much time left.
        run: yields the rows.
        after: names of steps without whose success it cannot run.
        missing: why it cannot run with these settings, or empty.
    """

    name: str
    title: str
    seconds: float
    run: Callable[[Settings], Iterator[Row]]
    after: tuple[str, ...] = ()
    missing: str = ""


def steps(settings: Settings) -> list[Step]:
    """Return the steps of a run in their order: the goals first, then further formats, then the sweep."""
    first, *others = settings.formats
    exported = _exported(settings, first)
    return [
        Step("machine", "card, driver and versions", 60, machine.describe),
        *_format_steps(settings, first),
        Step("video", f"one {settings.scale.video.description} against the original", 300, clips.video, exported),
        Step("live", "live sessions in real time", 180, live, exported),
        Step("many", f"{settings.scale.many.description}, against x264 alone", 300, clips.many, exported),
        Step(
            "grpc-compiled",
            "wav2lip compiled, through gRPC",
            480,
            compiled,
            _exported(settings, _COMPILED),
            _not_compiled(settings),
        ),
        *(step for kind in others for step in _format_steps(settings, kind)),
        Step(
            "bare-tensorrt",
            "wav2lip as a TensorRT plan, by trtexec",
            300,
            bare_plan,
            _exported(settings, _ONNX),
            _no_files(settings) or ("TensorRT needs a GPU" if settings.device == "cpu" else ""),
        ),
        Step("sweep", "wav2lip through gRPC: more loads", 240, sweep, exported),
    ]


_ONNX, _COMPILED = Format.ONNX.value, Format.TORCHSCRIPT.value


def _format_steps(settings: Settings, kind: str) -> Iterator[Step]:
    exported = _exported(settings, kind)
    for name in exported:
        yield Step(name, f"write {settings.variant_of(kind)}", 240, partial(export, kind))
    run = partial(bare_network, kind)
    yield Step(f"bare-{kind}", f"wav2lip in its runtime, {kind}", 120, run, exported, _no_files(settings))
    title = f"golden data, and wav2lip through gRPC, {kind}"
    yield Step(f"grpc-{kind}", title, 240, partial(through_grpc, kind), exported)


def _exported(settings: Settings, kind: str) -> tuple[str, ...]:
    return (f"export-{kind}",) if kind in settings.formats and kind != GIVEN else ()


def _no_files(settings: Settings) -> str:
    return "the server's models are not on this machine (--url)" if settings.url else ""


def _not_compiled(settings: Settings) -> str:
    if settings.formats == (GIVEN,):
        return "only exports of this run are compiled (--url or --repository is given)"
    return "for a CPU the compiler takes longer than a step may" if settings.device == "cpu" else ""


def export(kind: str, settings: Settings) -> Iterator[Row]:
    """Write the repository of one format."""
    variant = settings.variant_of(kind)
    weights = timing_networks(settings.weights)
    repository.write(settings.repository_of(kind), weights, variant, settings.profile)
    yield {"table": "exports", "variant": str(variant), "profile": str(settings.profile)}


def bare_network(kind: str, settings: Settings) -> Iterator[Row]:
    """Measure the network in its runtime."""
    path, file_format = bare.exported(settings.repository_of(kind))
    for batch in settings.scale.batches:
        for path_name, run in bare.runs(path, file_format, settings.device, batch):
            with CardMonitor(settings.device) as card:
                speed = bare.frames_per_second(run, batch, settings.scale.seconds, settings.device)
            yield _speed_row(str(file_format), path_name, batch, speed) | card.means


def bare_plan(settings: Settings) -> Iterator[Row]:
    """Measure a TensorRT plan of the ONNX export."""
    onnx, _ = bare.exported(settings.repository_of(_ONNX if settings.repository is None else GIVEN))
    precision = settings.variant_of(_ONNX).precision
    for batch, speed in plan.measure(onnx, precision, settings.scale.batches, settings.scale.seconds):
        yield _speed_row(f"tensorrt {precision}", "bare", batch, speed)


def through_grpc(kind: str, settings: Settings) -> Iterator[Row]:
    """Compare the golden data behind the live server, then load `wav2lip`."""
    if kind == _ONNX:
        bare.onnx_provider(settings.device)  # otherwise the server would run it on the CPU, or not start
    with served(settings, kind) as server:
        variant, largest = _served_variant(server)
        if kind != GIVEN:
            precision = settings.variant_of(kind).precision
            for memory in _memories(settings):
                yield golden.mouths(server, memory, precision)
            yield golden.faces(server, precision)
        for memory in _memories(settings):
            for load in settings.scale.loads(memory):
                yield _load(settings, server, variant, largest, load)


def compiled(settings: Settings) -> Iterator[Row]:
    """Load `wav2lip` as the `pytorch` backend compiles it."""
    folder, source = settings.repository_of("compiled"), settings.repository_of(_COMPILED)
    repository.write_compiled(folder, source, settings.scale.batches, settings.work / "compiler")
    memory = Memory.SYSTEM
    with served(settings, "compiled", COMPILE_SECONDS) as server:
        log = server_log(settings, "compiled").read_text("utf-8", "replace")
        if failed := re.search(r"torch\.compile failed.*", log):
            raise LeftOut(failed[0])
        variant, largest = _served_variant(server)
        yield golden.mouths(server, memory, settings.variant_of(_COMPILED).precision)
        for load in settings.scale.loads(memory):
            yield _load(settings, server, f"{variant}, compiled", largest, load)


def sweep(settings: Settings) -> Iterator[Row]:
    """Load `wav2lip` with other numbers of callers and batches."""
    with served(settings, settings.formats[0]) as server:
        variant, largest = _served_variant(server)
        for load in settings.scale.sweep_loads(Memory.NONE if settings.url else Memory.SYSTEM):
            yield _load(settings, server, variant, largest, load)


def live(settings: Settings) -> Iterator[Row]:
    """Run live sessions in real time."""
    plan = live_latency.make_plan(settings.scale.live_seconds, "jpeg")
    with served(settings, settings.formats[0]) as server:
        for sessions in settings.scale.sessions:
            with CardMonitor(settings.device, server.metrics) as card:
                runs, failures = asyncio.run(live_latency.sweep(server.url, plan, [sessions]))
            for run in runs:
                yield {"table": "live", **asdict(run), "keeps_up": run.keeps_up} | card.means
            for failure in failures:
                yield {"table": "failures", "what": f"live, {failure}"}


def _memories(settings: Settings) -> tuple[Memory, ...]:
    """Return the ways to send tensors that can work: memory is shared on one machine only."""
    if settings.url and not is_local(settings.url):
        return (Memory.NONE,)
    return tuple(Memory) if settings.device == "cuda" else (Memory.NONE, Memory.SYSTEM)


def _served_variant(server: Server) -> tuple[str, int]:
    """Return the backend and precision of the served `wav2lip`, and its largest batch."""
    client = connect(server.url)
    try:
        config = client.get_model_config(WAV2LIP.name).config
    finally:
        client.close()
    return f"{config.backend} {config.parameters['precision'].string_value}".strip(), config.max_batch_size


def _load(settings: Settings, server: Server, variant: str, largest: int, load: Load) -> Row:
    row = _speed_row(variant, "gRPC", load.batch, 0.0) | {"memory": str(load.memory), "callers": load.callers}
    if load.batch > largest:
        return {"table": "failures", "what": f"{variant}, {load}: the server accepts at most {largest} frames"}
    before = _executions(server)
    try:
        with CardMonitor(settings.device, server.metrics) as card:
            result = callers.measure(server, load)
    except FAILURES as error:
        return {"table": "failures", "what": f"{variant}, {load}: {error}"}
    return row | asdict(result) | _mean_batch(before, _executions(server)) | card.means


def _speed_row(variant: str, path: str, batch: int, speed: float) -> Row:
    return {"table": "speed", "variant": variant, "path": path, "batch": batch, "frames_per_second": speed}


def _executions(server: Server) -> tuple[int, int]:
    """Return the frames that `wav2lip` has processed, and its executions."""
    client = connect(server.url)
    try:
        statistics = client.get_inference_statistics(WAV2LIP.name).model_stats[0]
    finally:
        client.close()
    return statistics.inference_count, statistics.execution_count


def _mean_batch(before: tuple[int, int], after: tuple[int, int]) -> Row:
    frames, executions = after[0] - before[0], after[1] - before[1]
    return {"mean_batch": frames / executions} if executions else {}
