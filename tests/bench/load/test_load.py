"""`python -m bench load`: forms at once and one after another against a live service, and what follows from them."""

import json
import os
import time
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.comparison.workloads import Kind
from bench.load import report
from bench.load.forms import FormMaker, Size
from bench.load.measure import Block, Result, blocks
from bench.load.meter import TOTAL, Meter
from embedded.server import Triton
from tests.support.gateway_process import Gateway

SIZE = Size(Kind.STILL, 360, 0.5)
MIB = 1 << 20


def block(
    forms: int, *, at_once: bool, seconds: float, waits: tuple[float, ...], round_: int = 1, mib: int = 0
) -> Block:
    return Block(forms, at_once, round_, seconds, waits, {TOTAL: mib * MIB} if mib else {}, {"gateway": seconds})


def test_forms_are_posted_one_after_another_and_at_once(triton: Triton, gateway: Gateway, tmp_path: Path) -> None:
    pids = {"Triton": triton.pid, "gateway": gateway.pid}
    maker = FormMaker(SIZE, tmp_path / "media", tmp_path)
    found = list(blocks(gateway.url, pids, maker, (2,), 1))
    assert [(each.forms, each.at_once, len(each.waits)) for each in found] == [
        (2, True, 2),
        (2, False, 2),
        (2, True, 2),
    ]
    sampled, serial, many = found
    assert sum(serial.waits) <= serial.seconds
    assert max(many.waits) <= many.seconds
    assert set(sampled.memory) == {"Triton", "gateway", TOTAL}
    assert sampled.memory[TOTAL] > 50 * MIB
    assert not serial.memory  # reading it would take time from the forms
    assert not many.memory
    for each in found:
        assert all(seconds > 0 for seconds in each.cpu.values())
        assert "2 forms" in report.line(each)
    written = json.loads(report.as_json(Result(found), SIZE, "tiny"))
    assert len(written["blocks"]) == 3
    assert len(written["goals"]) == 2


def test_every_form_is_new_to_the_service(tmp_path: Path) -> None:
    maker = FormMaker(SIZE, tmp_path / "media", tmp_path)
    forms = [*maker.make(3), *maker.make(3)]
    assert len({form.face.read_bytes() for form in forms}) == 6
    assert len({form.speech.read_bytes() for form in forms}) == 3  # nothing remembers speech
    assert len({form.speech.stat().st_size for form in forms}) == 1


def test_the_goals_are_judged_by_ratios_within_a_round() -> None:
    found = Result(
        [
            block(2, at_once=True, seconds=50, waits=(1.0, 50.0), round_=0, mib=100),
            block(4, at_once=True, seconds=50, waits=(1.0, 50.0), round_=0, mib=140),
            block(2, at_once=False, seconds=10, waits=(5.0, 5.0)),
            block(2, at_once=True, seconds=9, waits=(8.0, 9.0)),
            block(4, at_once=False, seconds=20, waits=(5.0,) * 4),
            block(4, at_once=True, seconds=20, waits=(5.0, 10.0, 15.0, 20.0)),
        ]
    )
    goals = {verdict.goal: (verdict.value, verdict.met) for verdict in found.verdicts()}
    assert goals == {
        "2 forms, at once ÷ one after another ≤": (0.9, True),
        "2 forms, longest ÷ mean wait ≤": (pytest.approx(18 / 17), True),
        "4 forms, at once ÷ one after another ≤": (1.0, False),
        "4 forms, longest ÷ mean wait ≤": (1.6, False),
        "memory of 4 ÷ memory of 2 forms ≤": (1.4, True),
    }
    table = report.text(found, SIZE)
    assert "goal: 4 forms, longest ÷ mean wait ≤ 1.5: 1.60, MISSED" in table


@pytest.mark.parametrize("memory", [True, False])
def test_the_meter_sees_the_time_of_a_process_and_its_memory_if_asked(memory: bool) -> None:
    with Meter({"this": os.getpid()}, memory=memory) as meter:
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
    assert meter.cpu["this"] >= 0.05
    assert set(meter.peaks) == ({"this", TOTAL} if memory else set())
    assert not memory or meter.peaks["this"] == meter.peaks[TOTAL] > MIB


@pytest.mark.parametrize("words", [("--forms", "0"), ("--seconds", "0"), ("--kind", "statue"), ("--height", "481")])
def test_wrong_usage_ends_before_anything_starts(words: tuple[str, ...]) -> None:
    try:
        status = main(["load", *words])
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 2
