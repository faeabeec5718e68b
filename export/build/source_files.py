"""Find the source files that decide an export, by following the imports of this project's own packages."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("export", "lipsync")


def imported_files(modules: Iterable[str], root: Path = ROOT) -> tuple[Path, ...]:
    """Return the files of `modules` and of every module of `PACKAGES` that they import, directly or indirectly.

    Imports inside functions count, those under `if TYPE_CHECKING:` do not. An `__init__.py` counts only if a name
    that is no module is imported from it.

    Args:
        modules: dotted names, such as `export.formats.tensorflow`.
        root: the folder that holds the packages.
    """
    found: set[Path] = set()
    waiting = [_file(module, root) for module in modules]
    while waiting:
        path = waiting.pop()
        if path is not None and path not in found:
            found.add(path)
            waiting += _imports(path, root)
    return tuple(sorted(found))


@cache
def _imports(path: Path, root: Path) -> tuple[Path, ...]:
    """Return the files that one file imports."""
    package = path.relative_to(root).parent.parts
    files = []
    for node in _walk(ast.parse(path.read_bytes(), path)):
        if isinstance(node, ast.Import):
            files += [_file(alias.name, root) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            files += [_file(f"{module}.{alias.name}", root) or _file(module, root) for alias in node.names]
    return tuple(file for file in files if file is not None)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def _file(module: str, root: Path) -> Path | None:
    """Return the file of a module of `PACKAGES`, or None if there is no such module."""
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return None
    path = root.joinpath(*parts)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
