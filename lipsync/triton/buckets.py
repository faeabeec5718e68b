"""Batch sizes that a network is prepared for. A batch runs in the smallest of them that holds it.

A CUDA graph, and a kernel that was chosen by measuring, are for one size. So there are a few sizes, and each batch is
padded to the next one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def buckets_up_to(most: int, sizes: Iterable[int] = BUCKETS) -> tuple[int, ...]:
    """Return the sizes below `most`, ascending, and `most` itself, so that the largest batch has a bucket.

    Raises:
        ValueError: a size is not positive.
    """
    chosen = sorted({*(size for size in sizes if size < most), most})
    if chosen[0] < 1:
        raise ValueError(f"batch sizes of at least 1 expected, got {chosen[0]}")
    return tuple(chosen)


def parse_buckets(text: str, most: int) -> tuple[int, ...]:
    """Return the buckets of a parameter such as `1,8,64`, with `most` as the last one; an empty text means `BUCKETS`.

    Raises:
        ValueError: the text is not a list of positive numbers.
    """
    if not text.strip():
        return buckets_up_to(most)
    try:
        return buckets_up_to(most, [int(size) for size in text.split(",")])
    except ValueError:
        raise ValueError(f"parameter BUCKETS: positive numbers expected, such as 1,8,64, got {text!r}") from None


def bucket_of(rows: int, buckets: Sequence[int]) -> int:
    """Return the smallest of the ascending `buckets` that holds `rows`.

    Raises:
        ValueError: the largest bucket is smaller than `rows`.
    """
    if rows < 1 or rows > buckets[-1]:
        raise ValueError(f"1 to {buckets[-1]} rows expected, got {rows}")
    return buckets[bisect_left(buckets, rows)]
