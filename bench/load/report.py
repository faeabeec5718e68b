"""Report a load: as text on the terminal, and as JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict

from ..comparison.results import Spread, three_digits
from ..machine import Machine
from .forms import Size
from .measure import Block, Result

MIB = 1 << 20
_HEAD = (
    f"{'forms':<6}{'one after':>10}{'at once, s':>12}{'ratio (min … max)':>22}{'mean wait':>11}{'longest':>9}"
    f"{'÷ mean':>8}{'memory, MiB':>13}{'CPU, s: one after, at once':>29}"
)


def line(block: Block) -> str:
    """Return one measurement in a line."""
    how = "at once" if block.at_once else "one after another"
    if block.memory:
        peaks = ", ".join(f"{name} {size // MIB}" for name, size in block.memory.items())
        return f"  memory: {block.forms} forms {how}; MiB: {peaks}"
    return (
        f"  round {block.round}: {block.forms} forms {how}: {three_digits(block.seconds)} s, waits "
        f"{three_digits(min(block.waits))} … {three_digits(max(block.waits))} s, {block.busy_cores:.2f} cores busy"
    )


def text(result: Result, size: Size) -> str:
    """Return the table and the goals."""
    rows = [_row(result, forms) for forms in result.numbers]
    goals = [f"  goal: {verdict.text}" for verdict in result.verdicts()]
    return "\n".join((f"each form: {size.text}", _HEAD, *rows, *goals))


def as_json(result: Result, size: Size, networks: str) -> str:
    """Return every measurement, and what follows from them."""
    goals = [asdict(verdict) for verdict in result.verdicts()]
    found = {
        "machine": asdict(Machine.current()),
        "form": asdict(size),
        "networks": networks,
        "goals": goals,
        "blocks": [asdict(block) for block in result.blocks],
    }
    return json.dumps(found, indent=2) + "\n"


def _row(result: Result, forms: int) -> str:
    serial, many = result.of(forms, at_once=False), result.of(forms, at_once=True)
    seconds = [Spread.of([block.seconds for block in part]) for part in (serial, many)]
    totals = [three_digits(each.median) if each else "–" for each in seconds]
    ratio, unfair = result.ratio(forms), result.unfairness(forms)
    mean = statistics.median(statistics.mean(block.waits) for block in many) if many else 0.0
    longest = statistics.median(max(block.waits) for block in many) if many else 0.0
    cpu = [statistics.median(sum(block.cpu.values()) for block in part) if part else 0.0 for part in (serial, many)]
    return (
        f"{forms:<6}{totals[0]:>10}{totals[1]:>12}{_spread(ratio):>22}{three_digits(mean):>11}"
        f"{three_digits(longest):>9}{f'{unfair.median:.2f}' if unfair else '–':>8}{result.peak(forms) // MIB:>13}"
        f"{f'{cpu[0]:.1f}, {cpu[1]:.1f}':>29}"
    )


def _spread(found: Spread | None) -> str:
    return f"{found.median:.2f} ({found.minimum:.2f} … {found.maximum:.2f})" if found else "–"
