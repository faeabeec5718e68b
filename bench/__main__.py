"""`python -m bench [COMMAND]`: see --help, of the program and of each command."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
import textwrap
from collections.abc import Sequence
from typing import cast

from lipsync.interpreter import explain_missing

try:
    from .cli import STATUS, WRONG_USAGE, Command, execute, report_failure
except ModuleNotFoundError as error:
    sys.exit(explain_missing("bench", error))

# Command to module (imported only when it runs, because some load PyTorch) and summary.
COMMANDS = {
    "compare": (
        "comparison.cli",
        "compare this service with the original algorithm, the bare networks and the encoder",
    ),
    "detection": (
        "detection.cli",
        "compare the boxes of fast detection with those of every frame, with a real detector on a real face",
    ),
    "encode": ("encoding.cli", "compare frames that the service converts with frames that ffmpeg converts"),
    "gpu": ("gpu.cli", "take every figure of a machine with a GPU in one run of at most 25 minutes"),
    "jobs": ("jobs.cli", "time what a long queue of jobs costs, with a PostgreSQL of its own"),
    "live": ("triton.live_latency", "run live sessions in real time: frames per second, and the latency of each frame"),
    "load": ("load.cli", "post many forms at once and one after another: total, waits, memory and processor time"),
    "overhead": ("triton.overhead", "compare wav2lip through gRPC with the same file in its bare runtime"),
    "perf": ("triton.sweep", "run perf_analyzer on every public model over gRPC, with and without shared memory"),
    "perf-inputs": ("triton.request_data", "write or check the request data of perf_analyzer (bench/perf)"),
    "startup": ("startup.cli", "time jobs until their first frame, without networks, against another commit"),
}
DEFAULT = "compare"
OLD_NAMES = {"serving": "overhead"}  # accepted for one more release


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    name = words.pop(0) if words and not words[0].startswith("-") else DEFAULT
    if name in OLD_NAMES:
        print(f"bench: `{name}` is the old name of `{OLD_NAMES[name]}`; it will be removed", file=sys.stderr)
        name = OLD_NAMES[name]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return report_failure(f"no command is named {name!r}; {hint}choose from {', '.join(COMMANDS)}", WRONG_USAGE)
    module, summary = COMMANDS[name]
    command = cast("Command", importlib.import_module(f".{module}", __package__))
    parser = argparse.ArgumentParser(
        prog=f"python -m bench {name}", description=f"{summary[0].upper()}{summary[1:]}.", epilog=STATUS
    )
    command.add_arguments(parser)
    return execute(command, parser.parse_args(words))


def _overview() -> str:
    width = max(map(len, COMMANDS))
    gap = " " * (width + 4)
    lines = [
        textwrap.fill(summary, 80, initial_indent=f"  {name:<{width}}  ", subsequent_indent=gap)
        for name, (_, summary) in COMMANDS.items()
    ]
    return "\n".join(
        (
            "usage: python -m bench [COMMAND] [OPTION ...]",
            "\nMeasure this service. Without a command, `compare` runs.\n",
            "commands:",
            *lines,
            "\n`python -m bench COMMAND --help` lists the options of a command.\nMissing models are exported first.",
            textwrap.fill(STATUS, 80),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
