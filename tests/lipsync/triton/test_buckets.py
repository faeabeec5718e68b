"""Which batch sizes a network is prepared for, and in which of them a batch runs."""

from __future__ import annotations

import pytest

from lipsync.triton.buckets import BUCKETS, bucket_of, buckets_up_to, parse_buckets


@pytest.mark.parametrize(
    ("most", "expected"), [(1, (1,)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12)), (256, BUCKETS), (512, (*BUCKETS, 512))]
)
def test_the_largest_batch_is_always_a_bucket(most: int, expected: tuple[int, ...]) -> None:
    assert buckets_up_to(most) == expected


def test_a_batch_runs_in_the_smallest_bucket_that_holds_it() -> None:
    found = {rows: bucket_of(rows, BUCKETS) for rows in (1, 2, 3, 4, 5, 64, 65, 129, 256)}
    assert found == {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 64: 64, 65: 128, 129: 256, 256: 256}


@pytest.mark.parametrize("rows", [0, -1, 257])
def test_a_batch_that_no_bucket_holds_is_refused(rows: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 256 rows expected, got {rows}"):
        bucket_of(rows, BUCKETS)


@pytest.mark.parametrize(
    ("text", "expected"), [("", (1, 2, 4, 8, 16)), ("4", (4, 16)), ("8, 2,64", (2, 8, 16)), ("16", (16,))]
)
def test_a_parameter_lists_other_buckets(text: str, expected: tuple[int, ...]) -> None:
    assert parse_buckets(text, 16) == expected


@pytest.mark.parametrize("text", ["many", "1,,2", "0", "-4"])
def test_a_list_that_is_none_is_reported_with_the_parameter(text: str) -> None:
    with pytest.raises(ValueError, match="parameter BUCKETS: positive numbers expected, such as 1,8,64"):
        parse_buckets(text, 16)
