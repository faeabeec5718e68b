"""Folders of the checkout that the benchmarks read and write."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"  # the portrait and the speech that ship with the project
WORK = ROOT / "build" / "bench"  # exported models, generated media, logs
OUT = ROOT / "out"  # results
REQUEST_DATA = ROOT / "bench" / "perf"  # committed input of perf_analyzer
