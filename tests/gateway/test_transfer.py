"""The deadline of an upload or a download, which moves with every byte."""

from gateway.transfer import Pace


def test_a_transfer_may_take_the_time_that_is_given() -> None:
    pace = Pace(seconds=60, min_rate=50_000, start=100)
    assert [pace.left(now) for now in (100, 130, 160, 200)] == [60, 30, 0, 0]


def test_every_byte_gives_time_at_the_least_rate() -> None:
    pace = Pace(seconds=60, min_rate=50_000, start=100)
    pace.advance(50_000)
    pace.advance(100_000)
    assert pace.left(100) == 63
    pace.advance(1)
    assert 63 < pace.left(100) < 63.001


def test_a_time_of_the_gateway_itself_is_not_counted() -> None:
    pace = Pace(seconds=60, min_rate=50_000, start=100)
    pace.excuse(5)
    assert pace.left(110) == 55
