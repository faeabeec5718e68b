"""Talk live over real models: the speech of a microphone goes in, and the face says it back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect

from tests.page.conftest import CHROMIUM, FLAGS
from tests.support.live_taps import tapped_page

SPEECH = Path(__file__).parents[2] / "samples" / "speech.wav"
MOUTH = """() => {
    const canvas = document.querySelector('#live-canvas');
    const { data } = canvas.getContext('2d').getImageData(0, canvas.height / 2, canvas.width, canvas.height / 4);
    return data.filter((_, n) => n % 52 === 0).join();
}"""


@pytest.fixture
def tab(browser: Browser, page_url: str, tmp_path: Path) -> Iterator[Page]:
    """Return a page whose microphone gives a second of speech after two seconds of silence, again and again."""
    samples, rate = soundfile.read(SPEECH, dtype="float32")
    silence = np.zeros(2 * rate, np.float32)
    soundfile.write(tmp_path / "voice.wav", np.concatenate([silence, samples[:rate]]), rate)
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={tmp_path / 'voice.wav'}"]
    program = next(filter(None, map(shutil.which, CHROMIUM)))
    chromium = browser.browser_type.launch(executable_path=program, args=flags)
    with tapped_page(chromium) as page:
        page.goto(f"{page_url}#live")
        yield page
    chromium.close()


def test_the_face_rests_then_says_the_words_and_rests_again(tab: Page) -> None:
    tab.get_by_role("button", name="Use the sample face").click()
    expect(tab.locator("#panel-live .file-name")).to_be_visible()
    tab.get_by_role("button", name="Start talking").click()
    expect(tab.locator("#live-state")).to_have_text(re.compile("^Speak"))
    # the first picture is one at rest, whatever the microphone gives
    first = f"() => {{ const mouth = ({MOUTH})(); return new Set(mouth.split(',')).size > 8 && mouth; }}"
    rest = tab.wait_for_function(first).json_value()
    tab.wait_for_function(f"rest => ({MOUTH})() !== rest", arg=rest)
    tab.wait_for_function("tap.loudest > 0.02")
    tab.wait_for_function(f"rest => ({MOUTH})() === rest", arg=rest)
    expect(tab.locator("#live-delay")).to_have_text(re.compile(r"^\d\.\d\d s$"))
    tab.get_by_role("button", name="End").click()
    expect(tab.locator("#live-state")).to_have_text("The session has ended.")
    expect(tab.locator("#live-alert")).to_be_empty()
