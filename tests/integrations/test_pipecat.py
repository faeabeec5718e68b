"""The video service of Pipecat on a live server: speech, words in their place, interruptions, rest, a lost server."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from avatar_client import Unavailable
from embedded.server import Triton
from tests.integrations.libraries import load
from tests.integrations.speech import FPS, RATE, assert_said, frequency, tone, words
from tests.support.relay import Relay


@pytest.fixture(scope="module")
def pipecat() -> Any:
    """What uses Pipecat, imported only for these tests."""
    return load("tests.integrations.pipecat_bot")


@pytest.fixture
async def bot(pipecat: Any, triton: Triton, small_face: bytes) -> AsyncIterator[Any]:
    async with pipecat.bot(triton.grpc_address, small_face) as running:
        yield running


async def test_a_speech_comes_out_whole_each_image_with_its_sound(bot: Any) -> None:
    speech, start = words(1, seed=1), time.monotonic()
    await bot.say(speech, context="c1")
    await bot.until_said()
    print(f"Pipecat: {len(bot.images()) / (time.monotonic() - start):.1f} frames per second of real time")
    assert_said(bot.sound(), speech)
    assert re.fullmatch(r"v*\(?v*\(?(va)+v*\)v*", bot.kinds()), bot.kinds()
    assert bot.kinds().count("va") == FPS
    assert bot.contexts() == ["c1"]
    info = bot.service.conversation.info
    assert {image.shape for image in bot.images()} == {(info.height, info.width, 3)}


async def test_the_mouth_moves_with_the_speech_and_rests_without(bot: Any) -> None:
    rest = bot.images()[-1]
    await bot.say(words(0.6, seed=1))
    await bot.until_said()
    assert max(np.abs(image.astype(int) - rest).max() for image in bot.images()) > 40
    count = len(bot.frames)
    await bot.until(lambda: len(bot.images(count)) >= 8)
    assert all(np.array_equal(image, rest) for image in bot.images(count)[2:])


async def test_words_come_out_with_the_speech_before_them(bot: Any, pipecat: Any) -> None:
    first, second = words(0.4, seed=1), words(0.4, seed=2)
    await bot.say(first, context="c1")
    await bot.push(pipecat.TextFrame("first"))
    await bot.say(second, context="c2")
    await bot.push(pipecat.TextFrame("second"))
    await bot.until(lambda: bot.kinds().count("t") == 2)
    kinds = bot.kinds().replace("v", "")
    assert re.fullmatch(r"\(a{10}\)t\(a{10}\)t", kinds), kinds
    np.testing.assert_array_equal(bot.sound(), np.concatenate((first, second)))
    assert bot.contexts() == ["c1", "c2"]


async def test_nothing_of_the_dropped_words_comes_after_an_interruption(bot: Any, pipecat: Any) -> None:
    dropped, said = words(4, seed=1), words(0.4, seed=2)
    await bot.say(dropped)
    await bot.push(pipecat.TextFrame("never said"))
    await bot.until(lambda: bot.kinds().count("a") >= 10)
    await bot.push(pipecat.InterruptionFrame())
    await bot.until(lambda: "!" in bot.kinds())
    assert_said(dropped[: len(bot.sound())], bot.sound())
    (place,) = [n for n, frame in enumerate(bot.frames) if isinstance(frame, pipecat.InterruptionFrame)]
    await bot.say(said)
    await bot.until_said()
    assert_said(bot.sound(place), said)
    assert "t" not in bot.kinds() and bot.kinds(place).count(")") == 1


async def test_an_interruption_at_rest_passes(bot: Any, pipecat: Any) -> None:
    await bot.push(pipecat.InterruptionFrame())
    await bot.until(lambda: "!" in bot.kinds())
    await bot.say(words(0.2, seed=1))
    await bot.until_said()
    assert_said(bot.sound(), words(0.2, seed=1))


async def test_the_end_passes_after_all_of_the_speech(bot: Any, pipecat: Any) -> None:
    speech = words(0.6, seed=1)
    await bot.say(speech)
    await bot.push(pipecat.EndFrame())
    await bot.until(lambda: "E" in bot.kinds())
    assert_said(bot.sound(), speech)
    assert re.search(r"\)v*E$", bot.kinds()), bot.kinds()


async def test_other_frames_pass_in_both_directions(bot: Any, pipecat: Any) -> None:
    await bot.say(words(2, seed=1))
    heard = pipecat.TranscriptionFrame("hello", "user", "now")
    heard.pts = 1
    await bot.push(heard, pipecat.TTSUpdateSettingsFrame())
    await bot.until(lambda: any(isinstance(each, pipecat.TTSUpdateSettingsFrame) for each in bot.frames))
    assert heard in bot.frames and not bot.kinds().count(")")
    await bot.sink.push_frame(pipecat.BotStartedSpeakingFrame(), pipecat.UPSTREAM)
    await bot.until(lambda: any(isinstance(each, pipecat.BotStartedSpeakingFrame) for each in bot.source.upstream))


@pytest.mark.parametrize(
    "kinds",
    [((8000, 1), (44_100, 2)), pytest.param(((16_000, 2), (48_000, 1)), marks=pytest.mark.slow)],
    ids=["fast", "slow"],
)
async def test_speech_of_any_rate_and_channels_is_converted(bot: Any, kinds: tuple[tuple[int, int], ...]) -> None:
    for rate, channels in kinds:
        count = len(bot.frames)
        said = bot.kinds().count(")")
        await bot.say(tone(0.4, rate, channels), rate)
        await bot.until_said(said + 1)
        sound = bot.sound(count)
        assert 0.39 < len(sound) / RATE < 0.48, (rate, len(sound) / RATE)
        assert frequency(sound) == pytest.approx(440, abs=4), (rate, channels)


async def test_the_voice_goes_on_while_the_server_is_lost_and_the_face_comes_back(
    pipecat: Any, relayed: Relay, small_face: bytes
) -> None:
    async with pipecat.bot(relayed.address, small_face) as bot:
        speech = words(1.2, seed=1)
        await bot.say(speech)
        await bot.until(lambda: bot.kinds().count("a") >= 5)
        before = len(bot.source.errors)  # the first session may have waited for a place
        await relayed.cut()
        await bot.until_said()
        assert_said(bot.sound(), speech)
        (error,) = bot.source.errors[before:]
        assert error.category is pipecat.ErrorCategory.CONNECTIVITY and isinstance(error.exception, Unavailable)
        assert "only the voice" in error.error and bot.service.is_usable
        await relayed.restore()
        count = len(bot.frames)
        await bot.until(lambda: len(bot.images(count)) >= 5)  # frames at rest again
        await bot.say(words(0.4, seed=2))
        await bot.until_said(2)
        assert_said(bot.sound(count), words(0.4, seed=2))


async def test_the_pipeline_starts_without_the_server_and_the_face_comes_later(
    pipecat: Any, relayed: Relay, small_face: bytes
) -> None:
    await relayed.cut()
    async with pipecat.bot(relayed.address, small_face, is_ready=False) as bot:
        await bot.until(lambda: bot.source.errors)
        assert bot.source.errors[0].category is pipecat.ErrorCategory.CONNECTIVITY
        await bot.say(words(0.2, seed=1))
        await bot.until_said()
        assert_said(bot.sound(), words(0.2, seed=1))
        assert not bot.images()
        await relayed.restore()
        await bot.until(lambda: bot.images())


async def test_a_face_that_cannot_be_used_makes_the_service_unusable_and_the_voice_passes(
    pipecat: Any, triton: Triton
) -> None:
    async with pipecat.bot(triton.grpc_address, b"no image", is_ready=False) as bot:
        await bot.until(lambda: any("face_file" in error.error for error in bot.source.errors))
        error = bot.source.errors[-1]
        assert error.category is pipecat.ErrorCategory.INVALID_REQUEST and not bot.service.is_usable
        await bot.say(words(0.2, seed=1))
        await bot.until_said()
        assert_said(bot.sound(), words(0.2, seed=1))


async def test_arguments_that_cannot_be_are_errors(pipecat: Any) -> None:
    with pytest.raises(TypeError, match="a face or the id of a prepared avatar"):
        pipecat.AvatarVideoService(server="127.0.0.1:8001")
    with pytest.raises(ValueError, match="host:port"):
        pipecat.AvatarVideoService(server="http://127.0.0.1:8001", face=b"face")
