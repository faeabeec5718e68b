"""What was measured, in words: on the terminal, as JSON, and as Markdown for the documents."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .memory_monitor import Peak
from .results import AGAIN, APART, COLD, ENCODER, FIRST, ORIGINAL, TOGETHER, Measured, Spread, bare, figure

MIB = 1 << 20


@dataclass(frozen=True)
class Machine:
    """Where and when it ran."""

    processor: str
    cores: int
    gpu: str
    when: str

    @classmethod
    def this(cls, gpu: str = "") -> Machine:
        """The one that we are on."""
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
        processor = names[0] if names else platform.machine()
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        return cls(processor, len(os.sched_getaffinity(0)), gpu, when)

    @property
    def text(self) -> str:
        """In a line."""
        return f"{self.cores} cores of {self.processor}{', ' + self.gpu if self.gpu else ''}; {self.when}"


def text(found: Measured) -> str:
    """One work, as it is printed when it is done."""
    work = found.work
    lines = ["", f"{work.name}: {work.about}, {found.frames} frames each, served as {found.variant or '?'}"]
    if found.timings:
        lines += [f"{'':<28}{'median':>10}{'least':>10}{'most':>10}   original ÷ (least … most)"]
    for who in found.who:
        if took := found.seconds(who):
            ratio = found.ratio(ORIGINAL, who)
            lines.append(f"{who:<28}{_row(took)}   {_spread(ratio) if ratio and who != ORIGINAL else ''}".rstrip())
    lines += [f"  goal: {verdict.text}" for verdict in found.verdicts()]
    lines += [f"  stages, {who}: {_stages(found.stages(who))}" for who in found.who if found.stages(who)]
    waits = [each.waits for each in found.timings if each.who == TOGETHER]
    lines += [f"  waited, at once: {' '.join(f'{one:.2f}' for one in sorted(waits[-1]))} s"] if waits else []
    lines += [f"  memory: {'; '.join(_peak(*each) for each in found.memory.items())}"] if found.memory else []
    lines += [f"  scaled: {_scaled(found)}"] if found.scaled else []
    lines += [f"  FAILED: {found.failure}"] if found.failure else []
    return "\n".join(lines)


def as_json(machine: Machine, all_found: Sequence[Measured]) -> str:
    """Every single measurement, and what follows from them."""
    return json.dumps({"machine": asdict(machine), "works": [_entry(each) for each in all_found]}, indent=2) + "\n"


def markdown(machine: Machine, all_found: Sequence[Measured]) -> str:
    """Tables for the documents."""
    found = [each for each in all_found if each.timings]
    single, many = [each for each in found if each.work.forms == 1], [each for each in found if each.work.forms > 1]
    parts = [f"Measured on {machine.text}. Medians, with the least and the most of the rounds."]
    if single:
        parts += [_times(single), _goals(single)]
    if many:
        parts += [_together(many)]
    if notes := [f"- {each.work.name}: {_scaled(each)}" for each in found if each.scaled]:
        parts += ["Scaled, since only a part was run:", "\n".join(notes)]
    parts += [_stage_table(single)] if single else []
    parts += [_memory(found)] if any(each.memory for each in found) else []
    return "\n\n".join(parts) + "\n"


def _times(found: Sequence[Measured]) -> str:
    head = ("work", "served as", "the original, s", "cold, s", "a new avatar, s", "original ÷", "the same again, s")
    rows = [
        (
            f"{each.work.about} (`{each.work.name}`)",
            each.variant,
            *(_median(each.seconds(who)) for who in (ORIGINAL, COLD, FIRST)),
            f"**{_spread(each.speedup)}**" if each.speedup else "–",
            *(_median(each.seconds(who)) for who in (AGAIN, bare(each.served), ENCODER)),
        )
        for each in found
    ]
    return _table((*head, "bare nets, s", "encoder alone, s"), rows)


def _goals(found: Sequence[Measured]) -> str:
    rows = [
        (each.work.name, f"{verdict.goal} {verdict.limit:g}", _or_dash(verdict.value), _met(verdict.met))
        for each in found
        for verdict in each.verdicts()
    ]
    return _table(("work", "goal", "reached", ""), rows) if rows else "None of these works has a goal."


def _together(found: Sequence[Measured]) -> str:
    rows = [
        (
            f"{each.work.about} (`{each.work.name}`)",
            each.variant,
            *(_median(each.seconds(who)) for who in (APART, TOGETHER)),
            "; ".join(verdict.text for verdict in each.verdicts()),
        )
        for each in found
    ]
    return _table(("work", "served as", f"{APART}, s", f"{TOGETHER}, s", "goals"), rows)


def _stage_table(found: Sequence[Measured]) -> str:
    rows = [
        (each.work.name, who, _stages(each.stages(who)))
        for each in found
        for who in (ORIGINAL, FIRST, AGAIN)
        if each.stages(who)
    ]
    return _table(("work", "who", "stages (those of the service overlap)"), rows)


def _memory(found: Sequence[Measured]) -> str:
    rows = [(each.work.name, "; ".join(_peak(*peak) for peak in each.memory.items())) for each in found if each.memory]
    return _table(("work", "resident memory at most, MiB; × how many processes at once"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _entry(found: Measured) -> dict[str, Any]:
    ratios = {
        "original ÷ service": found.speedup,
        "again ÷ (bare generator + encoder)": found.again,
        "at once ÷ one after another": found.ratio(TOGETHER, APART),
        "longest wait ÷ mean wait": found.unfairness,
        "frames a second ÷ x264 alone": found.beside_encoder,
    }
    return {
        "name": found.work.name,
        **asdict(found),
        "seconds": {who: asdict(took) for who in found.who if (took := found.seconds(who))},
        "ratios": {name: asdict(ratio) for name, ratio in ratios.items() if ratio},
        "stages": {who: found.stages(who) for who in found.who},
        "goals": [asdict(verdict) for verdict in found.verdicts()],
    }


def _scaled(found: Measured) -> str:
    parts = [f"{what} from {part} of {whole} frames" for what, (part, whole) in found.scaled.items()]
    return "; ".join(parts) + (f"; the original looks for faces in {found.batch} at once" if found.batch else "")


def _row(took: Spread) -> str:
    return "".join(f"{value:>8.2f} s" for value in (took.median, took.least, took.most))


def _spread(found: Spread | None) -> str:
    return f"{figure(found.median)} ({figure(found.least)} … {figure(found.most)})" if found else "–"


def _median(found: Spread | None) -> str:
    return _or_dash(found.median if found else None)


def _or_dash(value: float | None) -> str:
    return "–" if value is None else figure(value)


def _met(met: bool | None) -> str:
    return "not measured" if met is None else "met" if met else "**MISSED**"


def _stages(stages: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.items())


def _peak(name: str, peak: Peak) -> str:
    return f"{name} {peak.bytes / MIB:,.0f}{f' ×{peak.processes}' if peak.processes > 1 else ''}"
