"""`python -m export`: from checkpoints to a model repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import ExportError

DONE, FAILED = 0, 1  # argparse ends with 2 for wrong usage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 for done, 1 for failed."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (ExportError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("export: interrupted", file=sys.stderr)
    return FAILED


def _stand_ins(options: argparse.Namespace) -> int:
    from . import stand_ins

    stand_ins.write(options.weights, _say)
    return DONE


def _models(options: argparse.Namespace) -> int:
    from . import repository

    repository.build(options.weights, options.repository, _say)
    return DONE


def _configs(options: argparse.Namespace) -> int:
    from . import configs

    folder = configs.committed()
    if options.check:
        difference = configs.differences(folder)
        if difference:
            print(difference)
            raise ExportError("the committed configs differ from lipsync/tensors.py; run `python -m export configs`")
        return DONE
    for path in configs.write(folder):
        print(f"wrote {path.relative_to(folder.parent)}")
    return DONE


_COMMANDS = {"stand-ins": _stand_ins, "models": _models, "configs": _configs}


def _say(line: str) -> None:
    print(line, flush=True)  # somebody watches a pipe


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Make the Triton model repository from checkpoints.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    stand_ins = _add(
        commands,
        "stand-ins",
        "write stand-in checkpoints, for machines without the published weights",
        "Write stand-ins of the four checkpoints, in the official formats and under the official "
        "names. Files that this command did not write are never overwritten.",
    )
    stand_ins.add_argument("--weights", type=Path, required=True, metavar="DIR", help="folder to write them into")

    models = _add(
        commands,
        "models",
        "make a complete model repository from checkpoints",
        "Export every net and check it against the network it came from, copy the Python models, write the "
        "configs. What is up to date is not made again.",
    )
    models.add_argument("--weights", type=Path, required=True, metavar="DIR", help="folder with the four checkpoints")
    models.add_argument(
        "--repository", type=Path, required=True, metavar="DIR", help="folder that Triton will load; made if missing"
    )

    configs = _add(
        commands,
        "configs",
        "write model_repository/*/config.pbtxt from lipsync/tensors.py",
        "Write the committed Triton configurations from the table of tensors.",
    )
    configs.add_argument(
        "--check", action="store_true", help="write nothing; print what differs and fail if anything does"
    )
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, short: str, long: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=short, description=long, epilog="Exit status: 0 done, 1 failed, 2 wrong usage."
    )


if __name__ == "__main__":
    sys.exit(main())
