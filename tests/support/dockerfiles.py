"""Read the files of the containers: the compose file, the Dockerfiles, and the list of the build context."""

import fnmatch
import functools
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = {path.name.removesuffix(".Dockerfile"): path for path in sorted(DOCKER.glob("*.Dockerfile"))}
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def interpolated(value: Any, environment: Mapping[str, str] = {}) -> Any:
    """Replace variables like `docker compose`, in the only form that the file uses: `${NAME:-default}`."""
    if isinstance(value, dict):
        return {name: interpolated(each, environment) for name, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each, environment) for each in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: environment.get(match[1]) or match[2] or "", value)
    return value


def compose() -> dict[str, Any]:
    """Return the compose file with every variable at its default."""
    return interpolated(read_yaml(ROOT / "docker-compose.yml"))


def variables(text: str) -> dict[str, str | None]:
    """Return the variables in the text of a compose file, each with its default."""
    return {match[1]: match[2] for match in _VARIABLE.finditer(text)}


def dot_env() -> dict[str, str]:
    lines = (line for line in (ROOT / ".env").read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile, with its lines joined."""

    name: str
    rest: str

    def words(self) -> list[str]:
        """Return the arguments of a COPY, or the argv in the JSON list."""
        if "[" in self.rest and self.name in {"CMD", "ENTRYPOINT", "HEALTHCHECK"}:
            return YAML(typ="safe").load(self.rest[self.rest.index("[") :])
        return [word for word in shlex.split(self.rest) if not word.startswith("--")]


def steps(dockerfile: Path) -> list[Step]:
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Step(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def step(dockerfile: Path, name: str) -> Step:
    """Return the last instruction of this name, which is the one with effect on the image."""
    return [each for each in steps(dockerfile) if each.name == name][-1]


def last_stage(dockerfile: Path) -> list[Step]:
    """Return the instructions of the last stage, which is the image itself."""
    named = steps(dockerfile)
    return named[max(i for i, each in enumerate(named) if each.name == "FROM") :]


@functools.cache
def context() -> list[Path]:
    """Return the files of the build context, relative to the root: files of git and new ones that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for path in map(Path, listed.stdout.splitlines()) if (ROOT / path).is_file() and not ignored(path)]


def ignored(path: Path) -> bool:
    """Return whether Docker ignores the path: the last pattern that matches it or a parent folder decides."""
    verdict = False
    for pattern in _ignore_patterns():
        if any(_matches(part, pattern.removeprefix("!")) for part in (path, *path.parents[:-1])):
            verdict = not pattern.startswith("!")
    return verdict


@functools.cache
def _ignore_patterns() -> list[str]:
    lines = map(str.strip, (ROOT / ".dockerignore").read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _matches(path: Path, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(path.name, pattern.removeprefix("**/"))
    return len(path.parts) == len(Path(pattern).parts) and fnmatch.fnmatch(str(path), pattern)
