"""Fixtures for the tests of the page: a Chromium, pages that report what is wrong, and gateways that serve the page."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from embedded.postgres import Postgres
from scripts.page_images import chromium
from tests.support.api_keys import add_key
from tests.support.gateway_process import Gateway
from tests.support.page_gateway import PacedRender, gateway_in_thread
from tests.support.postgres import fresh_database

FLAGS = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--no-sandbox",  # tests run as root
)
LIMIT = 30_000  # milliseconds for what a page has to show
LOCAL = ("data", "blob")
expect.set_options(timeout=LIMIT)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium for all tests of the page; its microphone beeps once per second."""
    program = chromium()
    if program is None:
        assert not os.environ.get("CI"), "the tests of the page need Chromium: apt-get install chromium"
        pytest.skip("there is no Chromium here; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        yield browser
        asyncio._set_running_loop(loop)
        browser.close()


@contextmanager
def loop_of(browser: Browser) -> Iterator[None]:
    """Let only this block have the loop of Playwright as the running one: other tests run loops of their own."""
    asyncio._set_running_loop(browser._loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)


@pytest.fixture(autouse=True)
def loop_of_playwright(browser: Browser) -> Iterator[None]:
    """Run the tests of the page on the loop of Playwright."""
    with loop_of(browser):
        yield


@dataclass
class Pages:
    """Opens pages in contexts of their own, and collects what is wrong in them."""

    browser: Browser
    problems: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def open(self, url: str, **options: Any) -> Page:
        """Open a page in a new context, such as one with `color_scheme="dark"`."""
        page = self.blank(urlsplit(url).netloc, **options)
        page.goto(url)
        return page

    def blank(self, host: str, **options: Any) -> Page:
        """Open an empty page in a new context, which may ask this host only."""
        context = self.browser.new_context(permissions=["microphone"], **options)
        context.set_default_timeout(LIMIT)
        self.contexts.append(context)
        page = context.new_page()
        self._watch(page, host)
        return page

    def _watch(self, page: Page, host: str) -> None:
        """Note errors of scripts, violations of the policy, and requests to other hosts."""

        def request(url: str) -> None:
            parts = urlsplit(url)
            if parts.scheme not in LOCAL and parts.netloc != host:
                self.problems.append(f"request to {url}")

        page.on("request", lambda sent: request(sent.url))
        page.on("pageerror", lambda error: self.problems.append(f"error of a script: {error}"))
        page.on("console", lambda message: self._console(message.type, message.text))

    def close(self) -> None:
        """Close all pages, and fail if one of them has reported an error or asked another host."""
        for context in self.contexts:
            context.close()
        assert self.problems == []

    def _console(self, kind: str, text: str) -> None:
        # the browser also logs each response of 400 and more, which the page shows by itself
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.problems.append(f"{kind} on the console: {text}")


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    """Pages of a test. The test fails if one of them reports an error or asks another host."""
    opened = Pages(browser)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def page_url(job_gateway: Gateway) -> str:
    """The address of the page, over real models, with jobs."""
    return f"{job_gateway.url}/"


@pytest.fixture
def page(pages: Pages, page_url: str) -> Page:
    """The page over real models, in a browser that never saw it."""
    return pages.open(page_url)


@pytest.fixture(scope="session")
def paced(tmp_path_factory: pytest.TempPathFactory) -> PacedRender:
    """The job of `render`, which all tests share."""
    return PacedRender(tmp_path_factory.mktemp("paced"))


@pytest.fixture
def render(paced: PacedRender) -> Iterator[PacedRender]:
    """A job that the test holds and releases."""
    paced.reset()
    yield paced
    paced.reset()


Serve = Callable[..., str]


@pytest.fixture
def serve(render: PacedRender, tmp_path: Path) -> Iterator[Serve]:
    """`serve(page=False)`: the address of a gateway with the paced job; without a database by default."""
    with ExitStack() as running:

        def start(**settings: Any) -> str:
            return running.enter_context(gateway_in_thread(render, tmp_path, **settings)) + "/"

        yield start
        render.release()


@pytest.fixture(scope="session")
def shared_gateway(
    paced: PacedRender,
    postgres_server: Postgres,
    migrated_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The address of the gateway of `jobs_url`."""
    folder = tmp_path_factory.mktemp("shared")
    with fresh_database(postgres_server, migrated_database) as database:
        settings: dict[str, Any] = {"database_url": database, "workers": 2, "job_lease": 2.0}
        with gateway_in_thread(paced, folder, **settings) as url:
            yield f"{url}/"
            paced.reset()


@pytest.fixture
def jobs_url(shared_gateway: str, render: PacedRender) -> str:
    """The address of a gateway with the paced job, with jobs."""
    return shared_gateway


@pytest.fixture(scope="session")
def small_gateway(paced: PacedRender, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the gateway of `small_url`."""
    settings: dict[str, Any] = {"live_sockets": 0, "max_upload_bytes": 100_000}
    with gateway_in_thread(paced, tmp_path_factory.mktemp("small"), **settings) as url:
        yield f"{url}/"
        paced.reset()


@pytest.fixture
def small_url(small_gateway: str, render: PacedRender) -> str:
    """The address of a gateway with the paced job: no jobs, no live sessions, and no file of more than 100 kB."""
    return small_gateway


@dataclass(frozen=True)
class Keyed:
    """A gateway with jobs whose calls need a key."""

    url: str
    key: str


@pytest.fixture(scope="session")
def keyed_gateway(
    paced: PacedRender, postgres_server: Postgres, migrated_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keyed]:
    """The gateway of `keyed`."""
    folder = tmp_path_factory.mktemp("keyed")
    key = add_key(folder / "keys.json", "shop")
    with fresh_database(postgres_server, migrated_database) as database:
        settings: dict[str, Any] = {"database_url": database, "workers": 1, "api_keys": folder / "keys.json"}
        with gateway_in_thread(paced, folder, **settings) as url:
            yield Keyed(f"{url}/", key)
            paced.reset()


@pytest.fixture
def keyed(keyed_gateway: Keyed, render: PacedRender) -> Keyed:
    """A gateway with the paced job and keys."""
    return keyed_gateway


PHONE = {"width": 360, "height": 740}


def inaccessible(page: Page) -> list[str]:
    """Return what is wrong with the page as it is now: what axe finds, also in the dark, and whether a phone scrolls.

    There is a line for each element.
    """
    found = _violations(page)
    page.emulate_media(color_scheme="dark")
    found += _violations(page, {"runOnly": ["color-contrast"]})
    page.emulate_media(color_scheme="light")
    size = page.viewport_size
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    width = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size(size)  # type: ignore[arg-type]
    return found + ([f"{width} pixels on a phone"] if width > PHONE["width"] else [])


def _violations(page: Page, options: dict[str, Any] | None = None) -> list[str]:
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(AXE_SCRIPT)
    script = "options => axe.run(options).then(({ violations }) => violations)"
    found = page.evaluate(script, {"resultTypes": ["violations"], **(options or {})})
    return [f"{each['id']}: {node['html'][:200]} {node['failureSummary']}" for each in found for node in each["nodes"]]
