"""`python -m tests.soak`: see --help."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.soak import report, soak

ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0 no failure, 1 failures, 2 wrong usage."""
    options = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="avatar-soak-") as folder:
        repository = options.repository or _tiny(Path(folder))
        plan = soak.SoakPlan(
            repository=repository,
            folder=Path(folder) / "service",
            seconds=options.seconds,
            baseline_seconds=min(options.baseline, options.seconds / 4),
            fault_seconds=options.fault_every,
            forms=options.forms,
            restarts=options.restarts,
            seed=options.seed,
        )
        result = soak.run(plan, lambda line: print(line, flush=True))
        text = report.markdown(result)
    print(text)
    if options.report:
        options.report.write_text(text)
    return 1 if result.outcomes.failures else 0


def _tiny(folder: Path) -> Path:
    from tests.support import tiny_repository  # needs the exporter

    tiny_repository.write(folder / "repository")
    return folder / "repository"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Start the whole service, let honest and hostile callers use it, kill its processes, and check "
        "every response and the resources at the end. Everything runs on 127.0.0.1, and ends by itself.",
        epilog="Exit status: 0 no failure, 1 failures, 2 wrong usage.",
    )
    parser.add_argument("--seconds", type=float, default=1800, help="how long callers call (default 1800)")
    parser.add_argument(
        "--baseline", type=float, default=300, help="when the resources are measured for comparison (default 300 s)"
    )
    parser.add_argument("--fault-every", type=float, default=60, help="seconds between two faults (default 60)")
    parser.add_argument("--forms", type=int, default=0, help="run until so many forms are answered, forms only")
    parser.add_argument("--restarts", type=int, default=0, help="with --forms: kill tritonserver this many times")
    parser.add_argument("--repository", type=Path, help="exported models (default: tiny nets made for tests)")
    parser.add_argument("--report", type=Path, help="write the tables to this Markdown file, too")
    parser.add_argument("--seed", type=int, default=1, help="of all random choices (default 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
