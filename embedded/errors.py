"""The errors of the embedded server, each with the exit status of the command.

EmbeddedError (1)
├── MissingDependency       this machine cannot run the server; the message says what to install
├── BadRepository     the model repository does not exist or has no models
├── BadDatabase       PostgreSQL cannot use a folder, or did not start; the message says what to do
├── DatabaseBusy      a running PostgreSQL uses the folder
├── DatabaseEnded (5) PostgreSQL was ready, and ended by itself
├── PortBusy          a port is in use; the message names the port and its flag
├── StartFailed       the server did not become ready; the message names the model and the reason
└── ServerEnded (5)   the server was ready, and serves no more
    ├── ModelDied (3)     the process of a model ended
    ├── ModelHung (4)     a model does not answer, or the server is stopped
    └── ServerDied (5)    the server ended by itself
"""

from __future__ import annotations

from typing import ClassVar


class EmbeddedError(Exception):
    """Base of this package's errors; the message is for the operator."""

    exit_status: ClassVar[int] = 1


class MissingDependency(EmbeddedError):
    """Something that the server needs is missing on this machine."""


class BadRepository(EmbeddedError):
    """The repository does not exist or has no models."""


class BadDatabase(EmbeddedError):
    """PostgreSQL cannot use a folder, or did not become ready."""


class DatabaseBusy(EmbeddedError):
    """A running PostgreSQL uses the data folder."""


class DatabaseEnded(EmbeddedError):
    """PostgreSQL was ready, and ended by itself. A supervisor starts it again."""

    exit_status = 5


class PortBusy(EmbeddedError):
    """Another process listens on a requested port."""


class StartFailed(EmbeddedError):
    """The server ended, or was stopped, before every model was ready."""


class ServerEnded(EmbeddedError):
    """The server was ready, and serves no more. A supervisor starts another one."""

    exit_status = 5


class ModelDied(ServerEnded):
    """The process of a model ended. The server cannot replace it."""

    exit_status = 3


class ModelHung(ServerEnded):
    """A model does not answer, or the server itself is stopped."""

    exit_status = 4


class ServerDied(ServerEnded):
    """The running server ended by itself."""
