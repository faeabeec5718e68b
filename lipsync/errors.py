"""Errors of the arithmetic.

LipsyncError
└── InvalidInput    an array does not have the shape, type or range that a function requires
"""


class LipsyncError(Exception):
    """Base of every error raised by this package."""


class InvalidInput(LipsyncError, ValueError):
    """An array of the caller is invalid; the message names the array and what was expected."""
