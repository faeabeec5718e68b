"""Read the rendered chart: its pods, their containers and their variables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.check_deploy import Object, rendered


@dataclass(frozen=True)
class Pod:
    """The template of the pods of one object."""

    component: str
    kind: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Return its containers, those of the start included."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def pause(self) -> int:
        """Return the seconds before SIGTERM, for which its last container goes on."""
        hook = self.containers[-1].get("lifecycle", {}).get("preStop", {})
        return int(hook.get("sleep", {}).get("seconds", 0))

    @property
    def stop_seconds(self) -> int:
        """Return the seconds from SIGTERM to SIGKILL."""
        return int(self.spec["terminationGracePeriodSeconds"]) - self.pause


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def named(objects: Sequence[Object], kind: str, ending: str) -> Object:
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"].endswith(ending))
    return found


def pods(objects: Sequence[Object]) -> Iterator[Pod]:
    """Yield the pods of a rendering."""
    for each in objects:
        if template := each["spec"].get("template") if each["kind"] != "Secret" and "spec" in each else None:
            labels = template["metadata"]["labels"]
            yield Pod(labels["app.kubernetes.io/component"], each["kind"], labels, template["spec"])


def pod(rendering: str, component: str) -> Pod:
    (found,) = (each for each in pods(rendered(rendering)) if each.component == component)
    return found


def container(rendering: str, component: str, name: str = "") -> dict[str, Any]:
    """Return a container of a component; by default the one with its name."""
    (found,) = (each for each in pod(rendering, component).containers if each["name"] == (name or component))
    return found


def environment(container: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a container; one that comes from a Secret is empty."""
    names = [each["name"] for each in container.get("env", ())]
    assert len(set(names)) == len(names), "a variable twice"
    return {each["name"]: each.get("value", "") for each in container.get("env", ())}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return bool(selector.get("matchLabels", selector).items() <= labels.items())
