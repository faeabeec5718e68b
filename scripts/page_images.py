"""Take the pictures of docs/guide/page.md and live-page.md: `make page-images` while `make up` runs."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
SILENCE = "async () => new MediaStreamAudioDestinationNode(new AudioContext()).stream"  # in place of a microphone
DESKTOP, PHONE = ViewportSize(width=1180, height=860), ViewportSize(width=360, height=740)
SPEAKS_AT = 2.4  # seconds of the sample at which the mouth is open
JPEG_QUALITY = 82
LIMIT = 600_000  # milliseconds; two cores and the large models take a while


def chromium() -> str | None:
    """Return the path of this machine's Chromium, or of Chrome; None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def main() -> int:
    """Write the pictures; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:16000/", help="of the page (default: that of `make up`)")
    url = parser.parse_args().url
    program = chromium()
    if program is None:
        print("page_images: there is no Chromium; on Debian: apt-get install chromium", file=sys.stderr)
        return 1
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        _desktop(browser, url)
        _dark(browser, url)
        _phone(browser, url)
        _live(browser, url)
        browser.close()
    return 0


def _desktop(browser: Browser, url: str) -> None:
    page = browser.new_page(viewport=DESKTOP)
    page.goto(url)
    page.locator("#options:visible").wait_for()
    page.get_by_text("Version").wait_for()
    _save(page, "page-start")
    _make(page)
    page.get_by_text(re.compile(r"^[4-9]\d of 178 frames")).wait_for()
    _save(page, "page-progress")
    _wait_for_speech(page)
    page.evaluate("scrollTo(0, 0)")
    _save(page, "page-video")
    page.close()


def _dark(browser: Browser, url: str) -> None:
    page = browser.new_page(viewport=DESKTOP, color_scheme="dark")
    page.goto(url)
    _make(page)
    _wait_for_speech(page)
    page.evaluate("scrollTo(0, 0)")
    _save(page, "page-dark")
    page.close()


def _phone(browser: Browser, url: str) -> None:
    page = browser.new_page(viewport=PHONE, device_scale_factor=1.5)
    page.goto(url)
    _make(page)
    _wait_for_speech(page)
    _save(page, "page-phone")
    page.close()


def _live(browser: Browser, url: str) -> None:
    page = browser.new_page(viewport=ViewportSize(width=1080, height=1140))
    page.add_init_script(f"navigator.mediaDevices.getUserMedia = {SILENCE}")
    page.goto(f"{url}#live")
    page.get_by_role("button", name="Use the sample face").click()
    page.locator("#panel-live .file-name").wait_for()
    page.get_by_role("button", name="Start talking").click()
    page.locator("#live-state", has_text="Speak").wait_for()
    page.get_by_role("button", name="Say the sample").click()
    page.locator("#live-delay", has_text=re.compile(r"\d")).wait_for(timeout=LIMIT)  # the first words were said
    page.wait_for_timeout(SPEAKS_AT * 1000)
    page.evaluate("scrollTo(0, 0)")
    _save(page, "page-live")
    page.close()


def _make(page: Page) -> None:
    page.set_default_timeout(LIMIT)
    page.get_by_role("button", name="Try it with the sample").click()
    page.get_by_role("button", name="Make the video").click()


def _wait_for_speech(page: Page) -> None:
    """Return when the video stands at a frame in which the mouth is open."""
    page.locator("#stage video").evaluate(
        """(video, time) => new Promise((done) => {
            video.pause();
            video.onseeked = () => requestAnimationFrame(() => done(true));
            video.currentTime = time;
        })""",
        SPEAKS_AT,
    )


def _save(page: Page, name: str) -> None:
    """Write what is in view as a JPEG."""
    image = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(IMAGES / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


if __name__ == "__main__":
    sys.exit(main())
