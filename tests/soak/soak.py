"""One soak: the service, its callers, the faults, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.callers import Caller, FormCaller, Gate, LiveCaller, RenderCaller
from tests.soak.chaos import TRITON, Chaos, Fault
from tests.soak.forms import FormCase, Video, write_forms
from tests.soak.hostile import HostileCaller
from tests.soak.monitor import Resources
from tests.soak.outcomes import Outcomes
from tests.soak.stack import SoakStack, running

FORM_CALLERS = 3
SETTLE_SECONDS = 15.0  # abandoned live sessions end after ten seconds
JOIN_SECONDS = 120.0
KINDS = tuple(kind.kind for kind in (FormCaller, RenderCaller, LiveCaller, HostileCaller))
WARM_CALLS, WARM_SECONDS = 6, 120.0  # of each kind before the baseline, and how long that may take


@dataclass(frozen=True)
class SoakPlan:
    """What to run.

    Attributes:
        repository: exported models.
        folder: an empty folder for everything that is written.
        seconds: how long callers call.
        baseline_seconds: after how long the resources are measured that those at the end are compared with.
        fault_seconds: seconds between two faults; with `forms`, faults are spread over the forms instead.
        faults: what to break first, before faults of a random order; the run lasts at least until the last of them.
        forms: where set, run until this many forms are answered instead of for `seconds`.
        restarts: with `forms`, how many times tritonserver is killed.
        pace: seconds that every caller waits between two calls.
        seed: of all random choices.
    """

    repository: Path
    folder: Path
    seconds: float = 1800.0
    baseline_seconds: float = 300.0
    fault_seconds: float = 60.0
    faults: tuple[Fault, ...] = ()
    forms: int = 0
    restarts: int = 0
    pace: float = 0.0
    seed: int = 1


@dataclass
class SoakResult:
    """What came of a soak; `outcomes.failures` lists everything that must not happen."""

    outcomes: Outcomes
    seconds: float = 0.0
    baseline: Resources | None = None
    end: Resources | None = None
    growth: list[str] = field(default_factory=list)


def run(plan: SoakPlan, report: Callable[[str], None] = print) -> SoakResult:
    """Run a soak. `report` takes a line of progress now and then."""
    files = plan.folder / "media"
    files.mkdir(parents=True)
    cases = write_forms(files)
    with running(plan.repository, plan.folder) as stack:
        report(f"the service runs at {stack.url}")
        expected = {case.name: _expected(stack, case) for case in cases if not case.error}
        result = SoakResult(Outcomes())
        gate = Gate()
        callers = _callers(plan, stack, result.outcomes, gate, cases, expected)
        chaos = Chaos(stack, result.outcomes, cases[0], plan.seed, plan.faults)
        for caller in callers:
            caller.pace = plan.pace
            caller.start()
        try:
            if plan.forms:
                _until_forms(plan, result, chaos, report)
            else:
                _until_time(plan, result, chaos, gate, stack, report)
        finally:
            gate.stop()
        for caller in callers:
            caller.join(JOIN_SECONDS)
            if caller.is_alive():
                result.outcomes.fail(caller.kind, "this caller is still waiting for its response")
        result.seconds = result.outcomes.seconds
        result.end = _at_rest(stack, result.baseline)
        if result.baseline:
            result.growth = result.end.growth_since(result.baseline)
            for line in result.growth:
                result.outcomes.fail("resources", line)
    return result


def _expected(stack: SoakStack, case: FormCase) -> Video:
    response = case.post(stack.url)
    if response.status_code != 200:
        raise RuntimeError(f"{case.name}: {response.status_code} {response.text} before any fault")
    return Video.decode(response.content)


def _callers(
    plan: SoakPlan,
    stack: SoakStack,
    outcomes: Outcomes,
    gate: Gate,
    cases: list[FormCase],
    expected: dict[str, Video],
) -> list[Caller]:
    seed = plan.seed * 1000
    callers: list[Caller] = [FormCaller(stack, outcomes, gate, seed + n, cases, expected) for n in range(FORM_CALLERS)]
    if not plan.forms:
        frames = len(expected[cases[0].name].frames)
        callers += [
            RenderCaller(stack, outcomes, gate, seed + 10, cases[0], frames),
            LiveCaller(stack, outcomes, gate, seed + 11, cases[0]),
            HostileCaller(stack, outcomes, gate, seed + 12, cases),
        ]
    return callers


def _until_time(
    plan: SoakPlan,
    result: SoakResult,
    chaos: Chaos,
    gate: Gate,
    stack: SoakStack,
    report: Callable[[str], None],
) -> None:
    faults = threading.Thread(target=chaos.every, args=(plan.fault_seconds, gate.stopped), daemon=True)
    end = time.monotonic() + plan.seconds
    time.sleep(min(plan.baseline_seconds, plan.seconds))
    _until_warm(result.outcomes)
    gate.pause()
    result.baseline = _at_rest(stack)
    report(f"baseline: {result.baseline}")
    gate.resume()
    faults.start()
    while time.monotonic() < end or chaos.injected < len(plan.faults):
        time.sleep(min(30.0, max(0.1, end - time.monotonic())))
        report(_progress(result.outcomes))
    gate.stop()
    faults.join(JOIN_SECONDS)


def _until_warm(outcomes: Outcomes) -> None:
    """Wait until every kind of caller has made some calls: on a busy machine the first ones take long."""
    deadline = time.monotonic() + WARM_SECONDS
    while any(outcomes.total(kind) < WARM_CALLS for kind in KINDS) and time.monotonic() < deadline:
        time.sleep(0.2)


def _until_forms(plan: SoakPlan, result: SoakResult, chaos: Chaos, report: Callable[[str], None]) -> None:
    killed = 0
    while (answered := result.outcomes.total("form")) < plan.forms or killed < plan.restarts:
        if killed < plan.restarts and answered >= plan.forms * (killed + 1) // (plan.restarts + 1):
            chaos.inject(TRITON)
            killed += 1
            report(_progress(result.outcomes))
        time.sleep(0.2)


def _at_rest(stack: SoakStack, baseline: Resources | None = None) -> Resources:
    """Measure the resources when all calls have ended, at once when they are those of the baseline again."""
    deadline = time.monotonic() + 60
    while not stack.is_ready() and time.monotonic() < deadline:
        time.sleep(0.5)
    settled = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < settled:
        time.sleep(1.0)
        if baseline and not (resources := Resources.of(stack)).growth_since(baseline):
            return resources
    return Resources.of(stack)


def _progress(outcomes: Outcomes) -> str:
    counts = ", ".join(f"{caller} {outcome}: {number}" for (caller, outcome), number in sorted(outcomes.counts.items()))
    return f"{outcomes.seconds:6.0f} s  {counts}"
