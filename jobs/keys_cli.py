"""The command `python -m jobs keys`: add, list and revoke API keys."""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from avatar.settings import BadSetting, load

from .keys import BadKeys, Key, check_name, hash_key, new_key, parse
from .records import JobClass
from .settings import ServiceSettings

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_LIMITS = {
    "queued": "queued jobs that the owner may have",
    "running": "running jobs that the owner may have",
    "uploads_per_minute": "jobs, forms and faces that the owner may send per minute",
    "stored_mib": "MiB that the owner's files may take in the store",
}
_PRIVATE = 0o600
_FILE_HELP = "file with the hashed keys (default: AVATAR_API_KEYS)"


def add_parser(subparsers: Subparsers) -> None:
    """Add the command `keys`. Its arguments get `run`, a function of them that returns the exit status."""
    keys = subparsers.add_parser(
        "keys",
        help="add, list and revoke API keys",
        description="Add, list and revoke API keys. A running gateway reads the file again when it changes.",
        epilog="Exit status: 0 done, 1 the file cannot be used or has no such key, 2 wrong arguments.",
        allow_abbrev=False,
    )
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    _add_add(actions)
    listing = actions.add_parser("list", help="list the names, ids and limits of the keys", allow_abbrev=False)
    listing.add_argument("--file", type=Path, help=_FILE_HELP)
    listing.set_defaults(run=_checked(_list))
    revoke = actions.add_parser("revoke", help="remove the keys of a name", allow_abbrev=False)
    revoke.add_argument("name", metavar="NAME", type=_name)
    revoke.add_argument("--id", help="remove only the key with this id, as `list` shows it")
    revoke.add_argument("--file", type=Path, help=_FILE_HELP)
    revoke.set_defaults(run=_checked(_revoke))


def _add_add(actions: Subparsers) -> None:
    add = actions.add_parser(
        "add",
        help="make a key for a name and print it once",
        description="Make a key and print it. The file gets only its hash: the key cannot be shown again.",
        allow_abbrev=False,
    )
    add.add_argument("name", metavar="NAME", type=_name, help="owner of the jobs that are sent with the key")
    add.add_argument("--another", action="store_true", help="add one more key for a name that has one, to change keys")
    for limit, text in _LIMITS.items():
        option = "--" + limit.replace("_", "-")
        add.add_argument(option, type=_positive, metavar="N", help=f"{text} (default: the service's setting)")
    add.add_argument(
        "--priority",
        action="append",
        choices=[each.value for each in JobClass],
        help="priority that the key may ask for; repeat it for more (default: all)",
    )
    add.add_argument("--file", type=Path, help=_FILE_HELP)
    add.set_defaults(run=_checked(_add))


def _add(arguments: argparse.Namespace, path: Path) -> int:
    key = new_key()
    limits = {name: getattr(arguments, name) for name in _LIMITS if getattr(arguments, name)}
    line = Key(
        name=arguments.name,
        sha256=hash_key(key),
        created=datetime.now(UTC).replace(microsecond=0),
        priorities=frozenset(map(JobClass, arguments.priority)) if arguments.priority else None,
        **limits,
    )
    with _changing(path) as text:
        if not arguments.another and any(each.name == line.name for each in parse(text, path)):
            raise BadKeys(f"{line.name} has a key; --another adds one more, and `revoke` removes it")
        if text and not text.endswith("\n"):
            text += "\n"
        _replace(path, text + line.model_dump_json(exclude_none=True) + "\n")
    print(key)
    print(f"key {line.id} of {line.name} is in {path}; it is not shown again", file=sys.stderr)
    return 0


def _list(arguments: argparse.Namespace, path: Path) -> int:
    for key in parse(_read(path), path):
        words = [key.name, key.id, key.created.isoformat() if key.created else "-"]
        words += [f"{name}={getattr(key, name)}" for name in _LIMITS if getattr(key, name)]
        if key.priorities:
            words.append("priorities=" + ",".join(sorted(key.priorities)))
        print("  ".join(words))
    return 0


def _revoke(arguments: argparse.Namespace, path: Path) -> int:
    with _changing(path) as text:
        parse(text, path)
        kept: list[str] = []
        revoked: list[str] = []
        for line in text.splitlines(keepends=True):
            key = next(iter(parse(line, path)), None)  # none in a comment
            matches = key is not None and key.name == arguments.name and arguments.id in (None, key.id)
            (revoked if matches else kept).append(line)
        if not revoked:
            which = f" with the id {arguments.id}" if arguments.id else ""
            raise BadKeys(f"{path} has no key of {arguments.name}{which}; `list` shows all")
        _replace(path, "".join(kept))
    print(f"revoked {len(revoked)} of the keys of {arguments.name}")
    return 0


def _checked(command: Callable[[argparse.Namespace, Path], int]) -> Callable[[argparse.Namespace], int]:
    """Return the command as a function of its arguments, which finds the file and turns errors into a sentence."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            path = arguments.file or load(ServiceSettings).api_keys
            if path is None:
                raise BadSetting("no file of keys is given; use --file, or set AVATAR_API_KEYS")
            return command(arguments, Path(os.path.realpath(path)))
        except BadKeys as error:
            return _fail(str(error), 1)
        except OSError as error:
            return _fail(f"{error.filename or 'the file of keys'}: {error.strerror or error}", 1)
        except BadSetting as error:
            return _fail(str(error), 2)

    return run


def _fail(message: str, status: int) -> int:
    print(f"python -m jobs keys: {message}", file=sys.stderr)
    return status


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadKeys(f"{path} is not UTF-8") from None


@contextmanager
def _changing(path: Path) -> Iterator[str]:
    """Yield the text of the file, which no other command changes within the block."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield _read(path) if path.exists() else ""
    finally:
        os.close(folder)


def _replace(path: Path, text: str) -> None:
    """Replace the file as a whole, with its owner and its mode; a new one is readable by its owner only."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w", encoding="utf-8") as file:
            if path.exists():
                status = path.stat()
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _name(text: str) -> str:
    try:
        return check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
