"""What `avatar doctor` asks the gateway: whether it is there and ready, its version, its jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ._doctor_checks import OK, PROBLEM, WARNING, Check
from ._errors import AvatarClientError
from ._jobs import KEY_VARIABLE
from ._jobs_http import Transport
from ._options_cli import SCHEMA

_START = "start it (`make up` in a checkout starts all servers), or give its address by --url"
_RECOVERS = "look into the log of the gateway; the page on failures of the documentation says more"
# Faults of a gateway that is ready nevertheless, by their field: what does not work, and what to do.
_FAULTS = {
    "database_fault": ("the database cannot be used, so there are no jobs", "check AVATAR_DATABASE_URL of the gateway"),
    "store_fault": ("the store of the files cannot be used, so there are no jobs", "check AVATAR_STORE of the gateway"),
    "api_keys_fault": ("the file of the API keys cannot be read", "check AVATAR_API_KEYS of the gateway"),
}


def check_gateway(url: str, key: str, seconds: float, *, required: bool) -> Iterator[Check]:
    """Yield what the gateway is able to do; `required`: its absence is a problem, otherwise a warning."""
    transport = Transport(url, key, seconds, retries=0)
    try:
        live = transport.json("GET", "/health/live")
        if not isinstance(live, dict) or live.get("status") != "live":
            yield Check("gateway", PROBLEM, f"{url} answers, but not as the gateway does", _START, {"url": url})
            return
    except AvatarClientError as error:
        yield Check("gateway", PROBLEM if required else WARNING, error.message, _START, {"url": url, "live": False})
        return
    yield _ready(transport, _version(transport))
    yield from _faults(live)
    yield _jobs(transport, key)


def _version(transport: Transport) -> str | None:
    """Return the version of the service; None where it does not publish its description."""
    try:
        return str(transport.json("GET", SCHEMA)["info"]["version"])
    except (AvatarClientError, KeyError, TypeError):
        return None


def _ready(transport: Transport, version: str | None) -> Check:
    details: dict[str, Any] = {"url": transport.url, "live": True, "version": version}
    named = f"{transport.url}, version {version or 'unknown (AVATAR_DOCS=false)'},"
    try:
        health = transport.json("GET", "/health/ready")
    except AvatarClientError as error:
        details |= {"ready": False, "reason": error.message}
        return Check("gateway", PROBLEM, f"{named} is not ready: {error.message}", _RECOVERS, details)
    details |= {"ready": True, **health}
    text = f"{named} is ready: {health.get('running', 0)} running, {health.get('waiting', 0)} waiting"
    away = [each["server"] for each in health.get("triton") or () if not each["healthy"]]
    if away:
        return Check("gateway", WARNING, f"{text}; without {', '.join(away)}", "start these Tritons again", details)
    return Check("gateway", OK, text, details=details)


def _faults(live: Mapping[str, object]) -> Iterator[Check]:
    for name, (meaning, remedy) in _FAULTS.items():
        if fault := live.get(name):
            yield Check(name.partition("_")[0], WARNING, f"{meaning}: {fault}", remedy, {name: fault})
    if fault := live.get("last_fault"):
        ago = live.get("last_fault_seconds_ago")
        text = f"the gateway's machine had a fault {ago} s ago: {fault}"
        yield Check("machine", WARNING, text, _RECOVERS, {"fault": fault, "seconds_ago": ago})


def _jobs(transport: Transport, key: str) -> Check:
    """Check whether jobs can be handed over, and with this key."""
    try:
        transport.json("GET", "/v1/jobs?limit=1")
    except AvatarClientError as error:
        details = {"available": False, "code": error.error_code, "status": error.code}
        if error.code == 401:
            said = "does not accept this API key" if key else "requires an API key"
            return Check("jobs", PROBLEM, f"the gateway {said}", f"set {KEY_VARIABLE} to a valid key", details)
        if error.code == 501:
            text = "none: the gateway has no database; the form and gRPC work without"
            return Check("jobs", OK, text, "for jobs, set AVATAR_DATABASE_URL of the gateway", details)
        return Check("jobs", PROBLEM, error.message, _RECOVERS, details)
    return Check("jobs", OK, "can be handed over; the database answers", details={"available": True})
