"""The video generator of LiveKit Agents on a live server: speech, interruptions, rest, and a server that is lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from avatar_client import InvalidRequest, Unavailable
from embedded.server import Triton
from tests.integrations.libraries import load
from tests.integrations.speech import FPS, RATE, assert_said, frequency, tone, words
from tests.support.relay import Relay


@pytest.fixture(scope="module")
def livekit() -> Any:
    """What uses LiveKit, imported only for these tests."""
    return load("tests.integrations.livekit_agent")


@pytest.fixture
async def agent(livekit: Any, triton: Triton, small_face: bytes) -> AsyncIterator[Any]:
    async with livekit.agent(triton.grpc_address, small_face) as running:
        yield running


async def test_a_speech_comes_out_whole_each_frame_with_its_sound(agent: Any) -> None:
    speech = words(1.5, seed=1)
    await agent.say(speech)
    await agent.end()
    shown = await agent.take_segment()
    print(f"LiveKit: {shown.fps:.0f} frames per second")
    assert_said(shown.sound, speech)
    assert re.fullmatch("v*(va)+v*e", shown.kinds), shown.kinds
    assert shown.kinds.count("va") == len(shown.sounds) == round(1.5 * FPS)
    options = agent.generator.options
    assert {image.shape for image in shown.images} == {(options.video_height, options.video_width, 3)}
    assert (options.video_fps, options.audio_sample_rate, options.audio_channels) == (FPS, RATE, 1)


async def test_the_mouth_moves_with_the_speech_and_rests_without(agent: Any) -> None:
    rest = (await agent.take(4)).images[-1]
    await agent.say(words(1, seed=1))
    await agent.end()
    moved = [np.abs(image.astype(int) - rest).max() for image in (await agent.take_segment()).images]
    assert max(moved) > 40
    shown = await agent.take(10)
    assert shown.kinds == "v" * 10
    assert all(np.array_equal(image, rest) for image in shown.images)


async def test_two_speeches_come_out_one_after_the_other(agent: Any) -> None:
    first, second = words(0.5, seed=1), words(0.7, seed=2)
    for speech in (first, second):
        await agent.say(speech)
        await agent.end()
    for speech in (first, second):
        shown = await agent.take_segment()
        assert_said(shown.sound, speech)


async def test_nothing_of_the_dropped_words_comes_after_an_interruption(agent: Any) -> None:
    dropped, said = words(4, seed=1), words(0.6, seed=2)
    await agent.say(dropped)
    shown = await agent.take(15)
    assert_said(dropped[: len(shown.sound)], shown.sound)
    agent.generator.clear_buffer()
    await agent.say(said)
    await agent.end()
    shown = await agent.take_segment()
    assert_said(shown.sound, said)
    assert shown.kinds.count("e") == 1


async def test_an_interruption_between_an_image_and_its_sound_drops_the_sound(agent: Any) -> None:
    await agent.say(words(1, seed=1))
    assert (await agent.take_until("av")).sounds  # the last image is one of speech: its sound would be next
    agent.generator.clear_buffer()
    await agent.say(words(0.2, seed=2))
    await agent.end()
    assert_said((await agent.take_segment()).sound, words(0.2, seed=2))


async def test_ten_interruptions_in_a_row_leave_the_session_as_it_was(agent: Any) -> None:
    for seed in range(10):
        await agent.say(words(1, seed))
        await agent.take(5)
        agent.generator.clear_buffer()
    await agent.say(words(0.4, seed=99))
    await agent.end()
    assert_said((await agent.take_segment()).sound, words(0.4, seed=99))


async def test_speech_of_any_rate_and_channels_is_converted(agent: Any) -> None:
    for rate, channels in ((8000, 1), (16_000, 2), (44_100, 2), (48_000, 1), (96_000, 1)):
        await agent.say(tone(0.5, rate, channels), rate)
        await agent.end()
        sound = (await agent.take_segment()).sound
        assert 0.49 < len(sound) / RATE < 0.58, (rate, len(sound) / RATE)
        assert frequency(sound) == pytest.approx(440, abs=4), (rate, channels)


async def test_the_voice_goes_on_while_the_server_is_lost_and_the_face_comes_back(
    livekit: Any, relayed: Relay, small_face: bytes
) -> None:
    async with livekit.agent(relayed.address, small_face) as agent:
        speech = words(2, seed=1)
        await agent.say(speech)
        shown = await agent.take(20)
        await relayed.cut()
        await agent.end()
        rest = await agent.take_segment()
        assert_said(np.concatenate((shown.sound, rest.sound)), speech)
        assert len(agent.lost) == 1 and isinstance(agent.lost[0], Unavailable)
        await relayed.restore()
        taking = asyncio.create_task(agent.take_all())
        await asyncio.wait_for(agent.back.wait(), livekit.SECONDS)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        agent = livekit.Agent(agent.generator)
        await agent.say(speech[:RATE])
        await agent.end()
        shown = await agent.take_segment()
        assert_said(shown.sound, speech[:RATE])
        assert max(np.abs(image.astype(int) - shown.images[-1]).max() for image in shown.images) > 40


async def test_the_iteration_ends_when_the_generator_is_closed(agent: Any) -> None:
    await agent.say(words(1, seed=1))
    taking = asyncio.create_task(agent.take_all())
    await asyncio.sleep(0.1)
    await agent.generator.aclose()
    await taking
    await agent.say(words(0.1, seed=1))  # too late, and no error
    agent.generator.clear_buffer()


async def test_a_session_that_cannot_start_raises_in_words(livekit: Any, triton: Triton, small_face: bytes) -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        await livekit.start("127.0.0.1:9", small_face)
    with pytest.raises(InvalidRequest, match="face_file"):
        await livekit.start(triton.grpc_address, b"no image")
    with pytest.raises(InvalidRequest, match=r"sample_rate: .*8000"):
        await livekit.start(triton.grpc_address, small_face, sample_rate=96_000)
    with pytest.raises(ValueError, match=r"format: .*bgr"):
        await livekit.start(triton.grpc_address, small_face, format="jpeg")
    with pytest.raises(TypeError, match="face"):
        await livekit.start(triton.grpc_address, None)
