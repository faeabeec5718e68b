"""Fixtures of the jobs' tests: the real engines, which are started only if a test uses them."""

from tests.support.seaweedfs import s3_server

__all__ = ["s3_server"]
