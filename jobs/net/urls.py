"""Read the URLs of callers, and refuse what can be seen without the network."""

from __future__ import annotations

import httpx

from .addresses import UrlRules
from .errors import RefusedUrl

MAX_LENGTH = 8192  # a signed URL with a session token has 2,000 characters


def parse_url(url: str, rules: UrlRules) -> httpx.URL:
    """Return a URL of http or https. Raises RefusedUrl."""
    if len(url) > MAX_LENGTH:
        raise RefusedUrl(f"the URL has more than {MAX_LENGTH} characters")
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host  # not `host`, which decodes IDNA and fails for names that are allowed in the DNS
    except (httpx.InvalidURL, ValueError) as error:
        raise RefusedUrl("the URL cannot be read; give one such as https://host/path") from error
    schemes = ("https", "http") if rules.allow_http else ("https",)
    if parsed.scheme not in schemes or not host:
        raise RefusedUrl(f"the URL must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and a host")
    if b"%" in host:
        raise RefusedUrl("the URL cannot be read: its host has a character that no host has")
    if parsed.userinfo:
        raise RefusedUrl("the URL may not have a user name or a password; give a signed URL")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise RefusedUrl(f"the URL has the port {parsed.port}, which is not allowed")
    return parsed


def parse_s3(url: str, rules: UrlRules) -> tuple[str, str]:
    """Return the bucket and the key of `s3://bucket/key`. Raises RefusedUrl."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket or not key or len(url) > MAX_LENGTH:
        raise RefusedUrl("the URL must be s3://bucket/key")
    if bucket not in rules.s3_buckets:
        raise RefusedUrl("the URL names a bucket that this service does not read; give a signed https:// URL")
    return bucket, key
