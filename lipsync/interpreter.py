"""Explain a missing package to a person who started a program with another Python than that of `.venv`.

It is imported before anything that is installed, so it imports nothing but the standard library.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def explain_missing(program: str, error: ModuleNotFoundError) -> str:
    """Return what to do about a package that this Python does not have.

    Args:
        program: the package that was started with `python -m`.
        error: of the import.

    Raises:
        ModuleNotFoundError: the same one, if another Python would not help: it is a defect.
    """
    own = ROOT / ".venv" / "bin" / "python"
    if Path(sys.prefix) == own.parent.parent or (error.name or "").partition(".")[0] == program:
        raise error
    what = f"python -m {program}: this Python ({sys.executable}) does not have the package {error.name!r}"
    if own.exists():
        return f"{what}; use {_shown(own)} -m {program}"
    return f"{what}; `make setup` makes an environment that has it in .venv"


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
