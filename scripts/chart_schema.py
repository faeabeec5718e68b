"""Write deploy/helm/talking-avatar/values.schema.json: closed objects with the names and the types of values.yaml.

What a default cannot say (lists of words, maps of free names, and the settings that a component reads) is below.
Usage: `python -m scripts.chart_schema [--check]`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from avatar.settings import JobSettings, LiveSettings, variable_of
from gateway.settings import Settings
from jobs.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm" / "talking-avatar"
PATH = CHART / "values.schema.json"
Schema = dict[str, Any]

# Variables that the templates set, by component; other values of the chart decide them.
SHARED_VARIABLES = {
    "AVATAR_DATABASE_URL",
    "AVATAR_LOG_FORMAT",
    "AVATAR_LOG_LEVEL",
    "AVATAR_OTLP_ENDPOINT",
    "AVATAR_SHUTDOWN_GRACE",
    "AVATAR_STORE",
    "AVATAR_TRITON_SHARED_MEMORY",
    "AVATAR_TRITON_URL",
}
SET_BY_CHART = {
    "gateway": SHARED_VARIABLES
    | {"AVATAR_API_KEYS", "AVATAR_DRAIN_SECONDS", "AVATAR_HOST", "AVATAR_PORT", "AVATAR_WORKERS"},
    "worker": SHARED_VARIABLES | {"AVATAR_WORKER_HOST", "AVATAR_WORKER_PORT", "AVATAR_WORKER_JOBS"},
    "triton": {"AVATAR_OTLP_ENDPOINT", "AVATAR_TRITON_SHARED_MEMORY"},
}
SETTINGS: Mapping[str, type[JobSettings]] = {"gateway": Settings, "worker": WorkerSettings, "triton": LiveSettings}
OTHER_VARIABLES = r"^(OTEL|AWS|GOOGLE|AZURE|HTTP|HTTPS|NO)_[A-Z0-9_]+$"  # of libraries

FREE: Schema = {"type": "object"}  # Kubernetes checks it
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
LIST_OF_OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
LIST_OF_TEXTS: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
QUANTITIES: Schema = {
    "type": "object",
    "required": ["cpu", "memory", "ephemeral-storage"],
    "additionalProperties": False,
    "properties": {name: QUANTITY for name in ("cpu", "memory", "ephemeral-storage")},
}
DEVICES: Schema = {
    "type": "object",
    "propertyNames": {"pattern": r"^[a-z0-9.-]+/[a-z0-9.-]+$"},
    "additionalProperties": {"type": ["integer", "null"], "minimum": 1},
}
PARENTS: Schema = {"type": "array", "items": {"type": "object", "required": ["name"]}}
BY_NAME: Mapping[str, Schema] = {
    "nodeSelector": TEXTS,
    "podAnnotations": TEXTS,
    "annotations": TEXTS,
    "labels": TEXTS,
    "affinity": FREE,
    "tolerations": LIST_OF_OBJECTS,
    "envSecrets": LIST_OF_TEXTS,
    "pullSecrets": LIST_OF_OBJECTS,
    "hostnames": LIST_OF_TEXTS,
    "blockedAddresses": LIST_OF_TEXTS,
    "gatewayFrom": LIST_OF_OBJECTS,
    "tritonFrom": LIST_OF_OBJECTS,
    "monitoringFrom": LIST_OF_OBJECTS,
    "databaseFrom": LIST_OF_OBJECTS,
    "extraEgress": LIST_OF_OBJECTS,
    "parentRefs": PARENTS,
    "devices": DEVICES,
    "requests": QUANTITIES,
    "limits": QUANTITIES,
    "size": QUANTITY,
    "workSize": QUANTITY,
    "cacheSize": QUANTITY,
    "sharedMemory": QUANTITY,
    "accessMode": {"enum": ["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]},
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "maxUnavailable": {"type": ["integer", "string"]},
    "maxSurge": {"type": ["integer", "string"]},
    "cpuPercent": {"type": "integer", "minimum": 1, "maximum": 100},
    "shutdownGrace": {"type": "number", "minimum": 0, "maximum": 3600},
    "preStopSeconds": {"type": "integer", "minimum": 1, "maximum": 600},
}
BY_PATH: Mapping[str, Schema] = {
    "logLevel": {"enum": ["debug", "info", "warning", "error"]},
    "otlpEndpoint": {"type": "string", "pattern": r"^(https?://[^\s/?#]+(/[^\s?#]*)?)?$"},
    "store.location": {"type": "string", "pattern": "^((s3|gs|az)://.+)?$"},
    "store.endpoint": {"type": "string", "pattern": "^(https?://.+)?$"},
    "models.source": {"enum": ["store", "volume"]},
    "export.profile": {"enum": ["cpu", "gpu"]},
    "export.acceptLicense": {"enum": ["", "yes"]},
    "export.env": {"type": "object", "propertyNames": {"pattern": OTHER_VARIABLES}},
    "gateway.service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "autoscaling.mode": {"enum": ["none", "keda", "hpa"]},
    "autoscaling.triton.queueToCompute": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"},
}


def variables(component: str) -> Schema:
    """Return the schema of `env`: the settings that the component reads, and those of libraries."""
    names = {variable_of(name) for name in SETTINGS[component].model_fields}
    allowed = sorted(names - SET_BY_CHART[component])
    return {
        "type": "object",
        "propertyNames": {"anyOf": [{"enum": allowed}, {"pattern": OTHER_VARIABLES}]},
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    }


def schema_of(value: object, path: Sequence[str] = ()) -> Schema:
    """Return the schema of a value of values.yaml at a path."""
    dotted, name = ".".join(path), path[-1] if path else ""
    if name == "env" and path[0] in SETTINGS:
        return variables(path[0])
    if (known := BY_PATH.get(dotted) or BY_NAME.get(name)) is not None:
        return known
    if isinstance(value, Mapping):
        properties = {key: schema_of(each, (*path, key)) for key, each in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": properties}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0}
    if isinstance(value, str):
        return {"type": "string"}
    raise ValueError(f"values.yaml: {dotted} is a list of which scripts/chart_schema.py does not know the items")


def text() -> str:
    """Return the content of the file."""
    values = YAML(typ="safe").load(CHART / "values.yaml")
    made = schema_of(values)
    made["properties"]["global"] = FREE  # Helm adds it
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart talking-avatar"}
    return json.dumps({**head, **made}, indent=1) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file, or with `--check` compare it."""
    parser = argparse.ArgumentParser(prog="python -m scripts.chart_schema", description="Write values.schema.json.")
    parser.add_argument("--check", action="store_true", help="only compare the file with what would be written")
    options = parser.parse_args(argv)
    made = text()
    if not options.check:
        PATH.write_text(made)
        return 0
    if PATH.read_text() == made:
        return 0
    print(f"{PATH.relative_to(ROOT)} is out of date; run: .venv/bin/python -m scripts.chart_schema", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
