"""`configs`: write or check the committed Triton configurations."""

from __future__ import annotations

import argparse

from ..errors import ExportError

HELP = "write model_repository/*/config.pbtxt from lipsync/tensors.py"
DESCRIPTION = "Generate the committed Triton configurations from the table of tensors."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--check", action="store_true", help="write nothing; print the differences and fail if there are any"
    )


def run(args: argparse.Namespace) -> int:
    """Write the configurations, or compare them."""
    from ..triton_config import model_config

    folder = model_config.committed()
    if args.check:
        difference = model_config.differences(folder)
        if difference:
            print(difference)
            raise ExportError("the committed configs differ from lipsync/tensors.py; run `python -m export configs`")
        return 0
    for path in model_config.write(folder):
        print(f"wrote {path.relative_to(folder.parent)}")
    return 0
