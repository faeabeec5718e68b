"""`python -m export`."""

import sys

from lipsync.interpreter import explain_missing


def run() -> int:
    """Run the command line; explain a package that this Python does not have."""
    try:
        from .cli import main

        return main()
    except ModuleNotFoundError as error:
        print(explain_missing("export", error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run())
