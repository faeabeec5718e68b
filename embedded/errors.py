"""What can go wrong around the server.

EmbeddedError
├── MissingPart       this machine cannot run the wheel; the message says what to install
├── BadRepository     the model repository is not there, or has no model
├── PortBusy          a port is taken; the message names the port and its flag
├── StartFailed       the server did not become ready; the message names the model and its reason
└── ServerDied        the server ended without being asked to
"""


class EmbeddedError(Exception):
    """Base of every error raised by this package; the message is meant for the operator."""


class MissingDependency(EmbeddedError):
    """Something that the wheel needs is not on this machine."""


class BadRepository(EmbeddedError):
    """There is nothing to serve."""


class PortBusy(EmbeddedError):
    """Another process listens where the server should."""


class StartFailed(EmbeddedError):
    """The server ended, or was ended, before every model was ready."""


class ServerDied(EmbeddedError):
    """The running server ended by itself."""
