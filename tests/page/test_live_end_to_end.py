"""Talk live over a real gateway: the speech of a microphone goes in, and the face says it back."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect

from lipsync.arrays import Floats
from scripts.page_images import chromium
from tests.page.conftest import FLAGS
from tests.support.fake_live import FPS, FakeLive
from tests.support.fake_triton import serve
from tests.support.gateway_process import gateway_process
from tests.support.live_taps import Tap, tapped_page

SPEECH = Path(__file__).parents[2] / "samples" / "speech.wav"
MOST = 0.040  # seconds between what is heard and what is seen
MOUTH = """() => {
    const canvas = document.querySelector('#live-canvas');
    const { data } = canvas.getContext('2d').getImageData(0, canvas.height / 2, canvas.width, canvas.height / 4);
    return data.filter((_, n) => n % 52 === 0).join();
}"""


@contextmanager
def page_with_microphone(browser: Browser, voice: Floats, rate: int, folder: Path) -> Iterator[Page]:
    """Open a page in a Chromium whose microphone gives these samples again and again."""
    soundfile.write(folder / "voice.wav", voice, rate)
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={folder / 'voice.wav'}"]
    own = browser.browser_type.launch(executable_path=chromium(), args=flags)
    try:
        with tapped_page(own) as page:
            yield page
    finally:
        own.close()


@contextmanager
def in_thread(context: AbstractAsyncContextManager[str]) -> Iterator[str]:
    """Enter an async context on an event loop of its own: the test's thread belongs to Playwright."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(30)
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def start(page: Page, url: str) -> None:
    page.goto(f"{url}#live")
    page.get_by_role("button", name="Use the sample face").click()
    expect(page.locator("#panel-live .file-name")).to_be_visible()
    page.get_by_role("button", name="Start talking").click()
    expect(page.locator("#live-state")).to_have_text(re.compile("^Speak"))


def end(page: Page) -> None:
    page.get_by_role("button", name="End").click()
    expect(page.locator("#live-state")).to_have_text("The session has ended.")
    expect(page.locator("#live-alert")).to_be_empty()


def test_the_face_rests_then_says_the_words_and_rests_again(browser: Browser, page_url: str, tmp_path: Path) -> None:
    samples, rate = soundfile.read(SPEECH, dtype="float32")
    voice = np.concatenate([np.zeros(2 * rate, np.float32), samples[:rate]])
    with page_with_microphone(browser, voice, rate, tmp_path) as page:
        start(page, page_url)
        # the first picture is one at rest, whatever the microphone gives
        first = f"() => {{ const mouth = ({MOUTH})(); return new Set(mouth.split(',')).size > 8 && mouth; }}"
        rest = page.wait_for_function(first).json_value()
        page.wait_for_function(f"rest => ({MOUTH})() !== rest", arg=rest)
        page.wait_for_function("tap.loudest > 0.02")
        page.wait_for_function(f"rest => ({MOUTH})() === rest", arg=rest)
        expect(page.locator("#live-delay")).to_have_text(re.compile(r"^\d\.\d\d s$"))
        end(page)


@pytest.mark.slow
def test_bursts_at_the_microphone_are_heard_and_seen_together_for_a_minute(browser: Browser, tmp_path: Path) -> None:
    rate = 48_000
    voice = np.zeros(round(1.3 * rate), np.float32)
    voice[rate // 2 : rate // 2 + rate // 8] = np.sign(np.sin(np.arange(rate // 8) * 2 * np.pi * 300 / rate))
    models = FakeLive()
    models.draws = True  # white pictures where the sound is loud
    with (
        in_thread(serve(models)) as address,
        gateway_process(tmp_path, address) as gateway,
        page_with_microphone(browser, 0.9 * voice, rate, tmp_path) as page,
    ):
        start(page, f"{gateway.url}/")
        page.wait_for_function("tap.clocks.at(-1)?.[1] > 60", timeout=120_000)
        differences = Tap.read(page).differences(0.5) + 0.5 / FPS  # a burst begins anywhere in its frame
        end(page)
    low, middle, high = np.nanpercentile(differences * 1000, (0, 50, 100))
    print(f"\n{differences.size} bursts; pictures {low:.1f} to {high:.1f} ms after the sound, median {middle:.1f} ms")
    assert differences.size > 30
    assert np.isnan(differences).mean() <= 0.1
    assert np.nanpercentile(np.abs(differences), 98) <= MOST
