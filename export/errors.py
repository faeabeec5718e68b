"""What can go wrong in an export; the message is for the operator and stands alone.

    ExportError     an export failed: the message names the model or the file, and what is wrong

The command line prints the message and ends with status 1. Anything else that is raised is a defect.
"""


class ExportError(Exception):
    """Base of the exporter's errors."""
