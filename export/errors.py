"""The exporter's errors.

    ExportError     an export failed; the message names the model or the file and says what is wrong

The command line prints the message and exits with status 1. Any other exception is a bug.
"""


class ExportError(Exception):
    """Base of the exporter's errors; the message is for the operator and needs no context."""
