"""Errors of the benchmarks.

BenchError                          exit status 1; the message is for the user
├── perf_analyzer.AnalyzerError     perf_analyzer could not be run, or did not measure
└── live_client.LiveError           a live session failed
UsageError                          exit status 2; arguments that do not fit together
"""

from __future__ import annotations


class BenchError(Exception):
    """A measurement failed."""


class UsageError(Exception):
    """The arguments of a command do not fit together."""
