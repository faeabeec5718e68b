"""The errors of the embedded server.

EmbeddedError
├── MissingDependency       this machine cannot run the server; the message says what to install
├── BadRepository     the model repository does not exist or has no models
├── PortBusy          a port is in use; the message names the port and its flag
├── StartFailed       the server did not become ready; the message names the model and the reason
└── ServerDied        the running server ended by itself
"""


class EmbeddedError(Exception):
    """Base of this package's errors; the message is for the operator."""


class MissingDependency(EmbeddedError):
    """Something that the server needs is missing on this machine."""


class BadRepository(EmbeddedError):
    """The repository does not exist or has no models."""


class PortBusy(EmbeddedError):
    """Another process listens on a requested port."""


class StartFailed(EmbeddedError):
    """The server ended, or was stopped, before every model was ready."""


class ServerDied(EmbeddedError):
    """The running server ended by itself."""
