"""Errors of the arithmetic.

LipsyncError
└── InvalidInput    an array does not have the shape, type or range that a function asks for
"""


class LipsyncError(Exception):
    """Base of every error raised by this package."""


class InvalidInput(LipsyncError, ValueError):
    """The caller's arrays do not fit; the message names the array and what was expected."""
