"""The event stream of a job: Server-Sent Events, read line by line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from ._errors import ServerError
from ._job_records import JobEvent


def parse(lines: Iterable[bytes]) -> Iterator[JobEvent]:
    """Yield the events of a stream; one whose end did not arrive is dropped. Raises ServerError."""
    fields: dict[str, str] = {}
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if "data" in fields:
                yield from _event(fields)
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name:  # not a comment
            fields[name] = f"{fields['data']}\n{value}" if name == "data" and "data" in fields else value


def _event(fields: dict[str, str]) -> Iterator[JobEvent]:
    kind = fields.get("event")
    if kind not in ("state", "progress"):  # of a later version of the service
        return
    try:
        data = json.loads(fields["data"])
        if kind == "state":
            yield JobEvent(state=data["state"], id=fields.get("id"))
        else:
            yield JobEvent(None, data["stage"], data["frames_done"], data["frames_total"])
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"the event of a job cannot be read: {error!r}") from error
