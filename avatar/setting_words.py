"""Settings in words: what a value that is not accepted should have been, and which variables are no settings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

# Variables of this project that are no settings of the service: those of other commands, of images and of tests.
_OF_OTHERS = re.compile(
    r"AVATAR_(ACCEPT_LICEN[CS]E|API_KEY|CLUSTER_FORMS|DATABASE_DIR|MODEL_STORE|MODEL_STORE_KEY|REVISION|SERVER|TEST_.+|"
    r"TRITON_POLL|URL|VERSION)"
)
# what Docker and Kubernetes set for a container or a Service that is called `avatar`
_OF_LINKS = re.compile(r"AVATAR_(PORT_\d+_.+|SERVICE_.+|NAME|ENV_.+)")
_SIMILAR = 0.8  # least similarity of a name that is suggested


def expectation(field: FieldInfo, error: ErrorDetails) -> str:
    """Return what is expected of a value that pydantic rejects, in words: `expected a whole number from 0 to 65535`."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "expected" in extra:
        return f"expected {extra['expected']}"
    kind = error["type"]
    if kind.startswith("bool_"):
        return "expected true or false"
    if kind == "literal_error":
        return f"expected {str(error['ctx']['expected']).replace(chr(39), '')}"
    if kind.startswith(("int_", "float_", "greater_than", "less_than", "finite_")):
        is_whole = field.annotation in (int, int | None)
        return f"expected {'a whole number' if is_whole else 'a number'}{_range(field)}"
    if kind == "string_too_short":
        return "expected a text that is not empty"
    return error["msg"].removeprefix("Value error, ")


def _range(field: FieldInfo) -> str:
    """Return the phrase ` from 1 to 5`, ` above 0`, or nothing."""
    least = next((each.ge for each in field.metadata if isinstance(each, Ge)), None)
    above = next((each.gt for each in field.metadata if isinstance(each, Gt)), None)
    most = next((each.le for each in field.metadata if isinstance(each, Le)), None)
    below = next((each.lt for each in field.metadata if isinstance(each, Lt)), None)
    if least is not None and most is not None:
        return f" from {least} to {most}"
    start = f" of at least {least}" if least is not None else f" above {above}" if above is not None else ""
    end = f" of at most {most}" if most is not None else f" below {below}" if below is not None else ""
    return f"{start} and{end}" if start and end else start + end


def unknown_variables(environ: Mapping[str, str], known: Iterable[str], prefix: str) -> dict[str, str]:
    """Return the variables with this prefix that no program of this project reads, each with a known one like it.

    Where there is none like it, that is an empty text.
    """
    names = sorted(known)
    found = (name for name in sorted(environ) if name.startswith(prefix) and name not in names)
    unknown = [name for name in found if not _OF_OTHERS.fullmatch(name) and not _OF_LINKS.fullmatch(name)]
    return {name: next(iter(difflib.get_close_matches(name, names, n=1, cutoff=_SIMILAR)), "") for name in unknown}
