"""Check deploy/: the chart with helm and the schemas of Kubernetes, the examples of KServe, and Envoy's configuration.

Usage: `python -m scripts.check_deploy` (`make check-deploy`). It needs no cluster and no network.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from ruamel.yaml import YAML

from .chart_schema import CHART, ROOT
from .chart_schema import main as check_schema
from .helm_tools import tools

KUBERNETES = ("1.33", "1.34", "1.35")
CRD_SCHEMAS = ROOT / "deploy" / "schemas" / "custom-resources.json"
KSERVE = ROOT / "deploy" / "kserve"
ENVOY = ROOT / "deploy" / "envoy"
ENVOY_FOLDER = "/etc/envoy"  # that its files name
ENVOY_PROGRAM = Path(sys.executable).with_name("envoy")  # where `make setup` puts it
NAMESPACE = "demo"
# name of a rendering → the files of values
RENDERINGS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("values-cpu.yaml",),
    "gpu": ("values-gpu.yaml",),
    "mig": ("values-gpu.yaml", "values-mig.yaml"),
    "trial": ("values-trial.yaml",),
}
Object = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm and return its result, whatever its status."""
    return subprocess.run([str(tools() / "helm"), *arguments], capture_output=True, text=True)


def value_flags(rendering: str) -> list[str]:
    """Return the flags of helm for a rendering."""
    return [flag for name in RENDERINGS[rendering] for flag in ("--values", str(CHART / name))]


@functools.cache
def rendered(rendering: str, *more: str) -> tuple[Object, ...]:
    """Return the objects of the chart. Raises ValueError with helm's words."""
    done = helm("template", "avatar", str(CHART), "--namespace", NAMESPACE, *value_flags(rendering), *more)
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return tuple(filter(None, YAML(typ="safe").load_all(done.stdout)))


@functools.cache
def _definitions(version: str) -> tuple[Path, Any]:
    with as_file(files("kubernetes_validate") / "kubernetes-json-schema") as folder:
        (found,) = (each for each in folder.iterdir() if re.fullmatch(rf"v{version}\.\d+-local-strict", each.name))
    return found, Resource.from_contents(json.loads((found / "_definitions.json").read_text())) @ Registry()


@functools.cache
def _validator(version: str, kind: str, api_version: str) -> Draft202012Validator:
    custom = json.loads(CRD_SCHEMAS.read_text())
    if (known := custom["kinds"].get(f"{api_version}/{kind}")) is not None:
        return Draft202012Validator({**known, "$defs": custom["$defs"]})
    folder, registry = _definitions(version)
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)  # rbac.authorization.k8s.io/v1 → rbac-v1
    schema = json.loads((folder / f"{kind.lower()}-{group}.json").read_text())
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ registry)


def faults_of(item: Object, version: str) -> list[str]:
    """Return what a version of Kubernetes would refuse in an object."""
    name = f"{item['kind']}/{item['metadata']['name']} ({version})"
    try:
        validator = _validator(version, item["kind"], item["apiVersion"])
    except FileNotFoundError:
        return [f"{name}: {item['apiVersion']} has no such kind, and {CRD_SCHEMAS.name} does not have it"]
    return [f"{name}: {error.json_path}: {error.message[:300]}" for error in validator.iter_errors(item)]


def examples() -> Iterator[tuple[str, list[Object]]]:
    """Yield the examples of KServe: the name of the file and its objects."""
    for path in sorted(KSERVE.glob("*.yaml")):
        yield path.name, list(YAML(typ="safe").load_all(path))


def _check_rendering(rendering: str) -> list[str]:
    done = helm("lint", "--strict", str(CHART), "--namespace", NAMESPACE, *value_flags(rendering))
    faults = [f"helm lint: {done.stdout}{done.stderr}"] if done.returncode else []
    try:
        objects = rendered(rendering)
    except ValueError as error:
        return [*faults, f"helm template: {error}"]
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    faults += [f"{kind}/{name} exists twice" for kind, name in set(names) if names.count((kind, name)) > 1]
    return faults + _validate(objects)


def _validate(objects: Iterable[Object]) -> list[str]:
    return [fault for item in objects for version in KUBERNETES for fault in faults_of(item, version)]


def copy_envoy_files(folder: Path) -> Path:
    """Copy the files of deploy/envoy to a folder that they then name; return the path of the configuration."""
    for path in ENVOY.iterdir():
        (folder / path.name).write_text(path.read_text().replace(ENVOY_FOLDER, str(folder)))
    return folder / "envoy.yaml"


def _check_envoy() -> list[str]:
    """Let Envoy read its configuration."""
    with tempfile.TemporaryDirectory() as made:
        config = copy_envoy_files(Path(made))
        argv = [str(ENVOY_PROGRAM), "--mode", "validate", "--log-level", "warning", "--config-path", str(config)]
        done = subprocess.run(argv, capture_output=True, text=True)
    output = done.stdout + done.stderr
    return [output] if done.returncode or "deprecated" in output.lower() else []


def main() -> int:
    """Check everything; print what is wrong, and return the exit status."""
    argparse.ArgumentParser(
        prog="python -m scripts.check_deploy",
        description="Check the chart, KServe's examples and Envoy's configuration.",
    ).parse_args()
    tools()  # before two threads want to unpack them
    faults: dict[str, Sequence[str]] = {}
    with ThreadPoolExecutor(2) as pool:
        envoy = pool.submit(_check_envoy)
        rendering = {name: pool.submit(_check_rendering, name) for name in RENDERINGS}
        faults = {f"chart, {name}": each.result() for name, each in rendering.items()}
        faults["deploy/envoy/envoy.yaml"] = envoy.result()
    faults |= {f"deploy/kserve/{name}": _validate(objects) for name, objects in examples()}
    for name, lines in faults.items():
        for line in lines:
            print(f"{name}: {line}", file=sys.stderr)
    status = check_schema(["--check"])
    return 1 if any(faults.values()) else status


if __name__ == "__main__":
    sys.exit(main())
