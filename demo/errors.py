"""Errors of the demo.

DemoError
├── StackError    the models could not be exported, or a server did not start or has ended
└── FormError     the service rejected the form, or did not respond
"""

from __future__ import annotations


class DemoError(Exception):
    """Base of the demo's errors; the message is for the user."""


class StackError(DemoError):
    """The models could not be exported, or a server did not start; the message names the part and the reason."""


class FormError(DemoError):
    """The service rejected the form, or did not respond; the message is the service's own."""
