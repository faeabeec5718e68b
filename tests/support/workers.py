"""Which worker of pytest-xdist runs which tests (`--dist loadgroup --no-loadscope-reorder`).

Tests that share a slow fixture run on the same worker, so that the fixture is created once per run and not once per
worker. The groups come first, the longest at the front, and the tests of no group fill the time that is left.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

# by group: the fixtures that its tests share
MARKED = {  # pytest also marks these tests by the name of the group
    "live": {"triton", "gateway", "served"},
    "exports": {
        "stand_in_weights",
        "repository",
        "golden_builders",
        "stand_in_triton",
    },
}
GROUPS = MARKED | {
    "page": {"browser"},
    "postgres": {"postgres_server"},
}
LONGEST = ("soak", "live", "exports")  # in this order; each of them takes minutes


def distribute(items: list[pytest.Item]) -> None:
    """Mark the tests by their slow fixtures, and put them into groups and in order."""
    for item in items:
        for name, fixtures in MARKED.items():
            if fixtures & set(getattr(item, "fixturenames", ())):
                item.add_marker(getattr(pytest.mark, name))
        group = next(_groups(item), None)
        if group and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_rank)


def _groups(item: pytest.Item) -> Iterator[str]:
    module = item.nodeid.partition("::")[0]
    own, shared = set(), set()  # names of fixtures that the module defines, and of others
    for name, definitions in getattr(item, "_fixtureinfo").name2fixturedefs.items():  # noqa: B009 - mypy knows no such attribute
        if definitions[-1].baseid != module:
            shared.add(name)
        elif definitions[-1].scope == "module":
            own.add(name)
    yield from (group for group, fixtures in GROUPS.items() if shared & fixtures)
    if own:
        yield module


def _rank(item: pytest.Item) -> int:
    mark = item.get_closest_marker("xdist_group")
    if mark is None:
        return len(LONGEST) + 1
    group = mark.args[0] if mark.args else mark.kwargs["name"]
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)
