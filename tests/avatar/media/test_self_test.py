"""The test of ffmpeg with a built-in clip: what it finds, and how long its result counts."""

import asyncio

import pytest

from avatar.errors import FfmpegFault
from avatar.media import self_test
from avatar.media.self_test import SelfTest, failure_at_start, run_test
from tests.support.fake_ffmpeg import FAULTS, FakeFfmpeg
from tests.support.media import children


async def test_it_passes_with_the_real_program() -> None:
    before = children()
    await run_test()
    assert children() == before


@pytest.mark.parametrize("run", ["-i pipe:0", "f32le"], ids=["encode", "decode"])
@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_it_finds_every_fault_of_every_run(
    fake: FakeFfmpeg, monkeypatch: pytest.MonkeyPatch, fault: str, run: str
) -> None:
    if fault in ("hung", "busy"):  # any other has all the time of a busy machine
        monkeypatch.setattr(self_test, "TEST_SECONDS", 0.5)
    before = children()
    fake.fail(fault, run)
    with pytest.raises(FfmpegFault):
        await run_test()
    assert children() == before


async def test_a_process_that_starts_waits_longer_for_the_program_than_a_job(
    fake: FakeFfmpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "TEST_SECONDS", 0.001)  # as if the disk were cold
    assert await failure_at_start() == ""
    await self_test.SELF_TEST.check()  # the test at the start counts
    monkeypatch.setattr(self_test, "START_SECONDS", 0.5)
    fake.fail("hung", "-i pipe:0")
    assert "within 0.5 s; check the ffmpeg of this machine" in await failure_at_start()


class Counted:
    """A test that counts its runs, and fails if it is told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> None:
        self.runs += 1
        await self.gate.wait()
        if self.fails:
            raise FfmpegFault("a reason")


async def test_a_pass_counts_for_as_long_as_the_caller_allows() -> None:
    counted = Counted()
    test = SelfTest(counted)
    await test.check()
    await test.check()
    assert counted.runs == 1
    await test.check(max_age=0)
    assert counted.runs == 2


async def test_concurrent_checks_share_one_test() -> None:
    counted = Counted()
    counted.gate.clear()
    test = SelfTest(counted)
    checks = [asyncio.create_task(test.check()) for _ in range(10)]
    await asyncio.sleep(0)
    counted.gate.set()
    await asyncio.gather(*checks)
    assert counted.runs == 1


async def test_a_test_that_was_running_before_does_not_count_as_a_later_one() -> None:
    counted = Counted()
    counted.gate.clear()
    test = SelfTest(counted)
    early = asyncio.create_task(test.check())
    await asyncio.sleep(0.01)
    late = asyncio.create_task(test.check(max_age=0))
    await asyncio.sleep(0.01)
    counted.gate.set()
    await asyncio.gather(early, late)
    assert counted.runs == 2


async def test_a_cancelled_check_does_not_end_the_test_of_the_others() -> None:
    counted = Counted()
    counted.gate.clear()
    test = SelfTest(counted)
    first, second = (asyncio.create_task(test.check()) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    counted.gate.set()
    await second
    assert first.cancelled()
    assert counted.runs == 1


async def test_a_failure_counts_for_a_while_and_then_the_test_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    test = SelfTest(counted)
    await test.check()
    counted.fails = True
    for _ in range(3):
        with pytest.raises(FfmpegFault, match="a reason"):
            await test.check(max_age=0)
    assert counted.runs == 2
    assert test.failure
    with pytest.raises(FfmpegFault):
        await test.check()  # the pass before it no longer counts
    counted.fails = False
    monkeypatch.setattr(self_test, "FAILURE_SECONDS", 0.0)
    await test.check()
    assert test.failure is None
