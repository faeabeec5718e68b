"""The versioned calls: jobs that are handed over, watched and fetched later, and kept faces."""

from __future__ import annotations
