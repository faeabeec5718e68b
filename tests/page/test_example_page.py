"""The page of examples/: on another site than the service, it posts the form and shows the video."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.conftest import LIMIT
from tests.support.gateway_process import Gateway

ROOT = Path(__file__).parents[2]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The URL of a site that serves the folder of the examples."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=ROOT / "examples")) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(LIMIT)
    yield context.new_page()
    context.close()


def fill(page: Page, speech: Path) -> None:
    page.get_by_label("Face").set_input_files(ROOT / "samples" / "face.png")
    page.get_by_label("Speech").set_input_files(speech)
    page.get_by_role("button", name="Make the video").click()


def test_the_video_of_the_service_plays_on_a_page_of_another_site(page: Page, site: str, gateway: Gateway) -> None:
    page.goto(f"{site}/page.html?service={gateway.url}")
    fill(page, ROOT / "samples" / "speech.wav")
    expect(page.get_by_role("status")).to_have_text("178 frames", timeout=4 * LIMIT)
    video = page.locator("video")
    expect(video).to_be_visible()
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    assert video.evaluate("video => [video.videoWidth > 0, Math.round(video.duration)]") == [True, 7]


def test_the_error_of_the_service_and_a_missing_service_are_shown(
    page: Page, site: str, gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "speech.wav").write_bytes(b"no sound")
    page.goto(f"{site}/page.html?service={gateway.url}")
    fill(page, tmp_path / "speech.wav")
    expect(page.get_by_role("status")).to_contain_text("audio_file: ")
    page.goto(f"{site}/page.html?service=http://127.0.0.1:1")
    fill(page, tmp_path / "speech.wav")
    expect(page.get_by_role("status")).to_have_text("http://127.0.0.1:1 does not answer.")
