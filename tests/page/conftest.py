"""Fixtures for the tests of the page: a Chromium, pages that report what is wrong, and gateways that serve the page."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from embedded.postgres import Postgres
from embedded.server import Triton
from tests.support.gateway_process import Gateway, gateway_process
from tests.support.page_gateway import PacedRender, gateway_in_thread
from tests.support.postgres import fresh_database

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--no-sandbox",  # tests run as root
)
LIMIT = 30_000  # milliseconds for what a page has to show
LOCAL = ("data", "blob")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium for all tests of the page; its microphone beeps once per second."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
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


@pytest.fixture(autouse=True)
def loop_of_playwright(browser: Browser) -> Iterator[None]:
    """Let only tests of the page have the loop of Playwright as the running one: other tests run loops of their own."""
    asyncio._set_running_loop(browser._loop)
    yield
    asyncio._set_running_loop(None)


@dataclass
class Pages:
    """Opens pages in contexts of their own, and collects what is wrong in them."""

    browser: Browser
    problems: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def open(self, url: str, **options: Any) -> Page:
        """Open a page in a new context, such as one with `color_scheme="dark"`."""
        context = self.browser.new_context(permissions=["microphone"], **options)
        context.set_default_timeout(LIMIT)
        self.contexts.append(context)
        page = context.new_page()
        self.watch(page, urlsplit(url).netloc)
        page.goto(url)
        return page

    def watch(self, page: Page, host: str) -> None:
        """Note errors of scripts, violations of the policy, and requests to other hosts."""

        def request(url: str) -> None:
            parts = urlsplit(url)
            if parts.scheme not in LOCAL and parts.netloc != host:
                self.problems.append(f"request to {url}")

        page.on("request", lambda sent: request(sent.url))
        page.on("pageerror", lambda error: self.problems.append(f"error of a script: {error}"))
        page.on("console", lambda message: self._console(message.type, message.text))

    def _console(self, kind: str, text: str) -> None:
        # the browser also logs each response of 400 and more, which the page shows by itself
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.problems.append(f"{kind} on the console: {text}")


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    """Pages of a test. The test fails if one of them reports an error or asks another host."""
    opened = Pages(browser)
    yield opened
    for context in opened.contexts:
        context.close()
    assert opened.problems == []


@pytest.fixture(scope="session")
def page_gateway(
    triton: Triton, postgres_server: Postgres, migrated_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway process over the tiny Triton, with a database and a worker."""
    folder = tmp_path_factory.mktemp("page")
    with fresh_database(postgres_server, migrated_database) as url:
        settings = {"AVATAR_DATABASE_URL": url, "AVATAR_STORE": str(folder / "store")}
        with gateway_process(folder, triton.grpc_address, token=triton.token, **settings) as gateway:
            gateway.wait_for_jobs()
            yield gateway


@pytest.fixture(scope="session")
def page_url(page_gateway: Gateway) -> str:
    """The address of the page, over real models."""
    return f"{page_gateway.url}/"


@pytest.fixture
def page(pages: Pages, page_url: str) -> Page:
    """The page over real models, in a browser that never saw it."""
    return pages.open(page_url)


@pytest.fixture
def render(tmp_path: Path) -> Iterator[PacedRender]:
    """A job that the test holds and releases."""
    paced = PacedRender(tmp_path)
    yield paced
    paced.release()


Serve = Callable[..., str]


@pytest.fixture
def serve(render: PacedRender, tmp_path: Path) -> Iterator[Serve]:
    """`serve(page=False)`: the address of a gateway with the paced job, without a database."""
    with ExitStack() as running:

        def start(**settings: Any) -> str:
            folder = tmp_path / f"gateway-{len(list(tmp_path.iterdir()))}"
            (folder / "work").mkdir(parents=True)
            options = {"work_dir": folder / "work", "store": str(folder / "store"), **settings}
            return running.enter_context(gateway_in_thread(render, **options)) + "/"

        yield start
        render.release()


@pytest.fixture
def jobs_url(serve: Serve, database_url: str) -> str:
    """The address of a gateway with the paced job, with jobs."""
    return serve(database_url=database_url, workers=1)


def axe_violations(page: Page) -> list[str]:
    """Return what axe finds on the page, a line for each element."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]} {node['failureSummary']}" for each in found for node in each["nodes"]]
