"""`python -m bench [COMMAND]`: what this service is worth, measured. See --help of each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from .comparison import cli
from .triton import live_latency, overhead, request_data, sweep, throughput

# Each takes its own words and gives the exit status; without a name, the first of them runs.
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "compare": cli.main,
    "gpu": throughput.main,
    "live": live_latency.main,
    "perf": sweep.main,
    "perf-inputs": request_data.main,
    "serving": overhead.main,
}


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C."""
    words = list(sys.argv[1:] if words is None else words)
    name = words.pop(0) if words and words[0] in COMMANDS else "compare"
    return COMMANDS[name](words)


if __name__ == "__main__":
    sys.exit(main())
