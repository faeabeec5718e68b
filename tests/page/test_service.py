"""The page and what its service is: with keys, without a database, below a path, switched off."""

from playwright.sync_api import Route, expect

from tests.page.conftest import Keyed, Pages, Serve
from tests.page.test_form import choose_sample, make
from tests.support.page_gateway import PacedRender, wait_until


def test_a_service_with_keys_asks_for_the_key_once(pages: Pages, keyed: Keyed) -> None:
    page = pages.open(keyed.url)
    choose_sample(page)
    make(page)
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_contain_text("this service needs an API key")
    dialog.get_by_label("Key").fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("the API key is not valid")
    dialog.get_by_label("Key").fill(keyed.key)
    dialog.get_by_role("button", name="Continue").click()
    expect(page.locator("#stage video")).to_be_visible()  # its events and its result need the key too
    page.reload()
    page.locator("#history-list button").click()
    expect(page.locator("#stage video")).to_be_visible()
    expect(dialog).to_be_hidden()
    assert keyed.key not in page.evaluate("JSON.stringify(localStorage)")


def test_without_a_key_nothing_is_made(pages: Pages, keyed: Keyed, render: PacedRender) -> None:
    page = pages.open(keyed.url)
    choose_sample(page)
    make(page)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator("#form-alert")).to_contain_text("this service needs an API key")
    expect(page.get_by_role("button", name="Make the video")).to_be_enabled()
    assert render.requests == []


def test_without_a_database_the_page_waits_for_the_form(pages: Pages, small_url: str, render: PacedRender) -> None:
    render.stand_ins = ("wav2lip",)
    render.hold()
    page = pages.open(small_url)
    expect(page.get_by_text("This service keeps no jobs")).to_be_visible()
    choose_sample(page)
    make(page)
    expect(page.locator("#stage")).to_contain_text("Making the video")
    expect(page.locator("#stage progress")).not_to_have_attribute("value", "1")
    render.release()
    expect(page.locator("#stage video")).to_be_visible()
    expect(page.locator("#stage .figures")).to_contain_text("Frames50Length2.0 s")
    expect(page.locator("#video-stand-ins")).to_contain_text("wav2lip")
    expect(page.get_by_role("link", name="Download")).to_have_attribute("download", "sample-face-sample-speech.mp4")


def test_without_a_database_cancel_ends_the_form(pages: Pages, small_url: str, render: PacedRender) -> None:
    render.hold()
    page = pages.open(small_url)
    choose_sample(page)
    make(page)
    expect(page.locator("#stage")).to_contain_text("Making the video")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Canceled")).to_be_visible()
    wait_until(lambda: render.cancelled == 1)


def test_a_page_that_is_switched_off_shows_the_links(pages: Pages, serve: Serve) -> None:
    page = pages.open(serve(page=False))
    assert '"page":null' in page.content()


def test_the_policy_keeps_foreign_scripts_out(pages: Pages, jobs_url: str) -> None:
    page = pages.open(jobs_url)
    blocked = page.evaluate(
        """() => new Promise((done) => {
            document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
            document.body.append(Object.assign(document.createElement("script"), {textContent: "window.ran = true"}));
        })"""
    )
    assert (blocked, page.evaluate("window.ran")) == ("script-src-elem", None)
    pages.problems.clear()  # the browser reports what it has blocked


def test_a_service_without_live_sessions_shows_no_tab_for_them(pages: Pages, small_url: str) -> None:
    page = pages.open(f"{small_url}#live")
    expect(page.locator("#panel-video")).to_be_visible()
    expect(page.get_by_role("tablist")).to_be_hidden()


def test_a_proxy_may_serve_the_page_below_a_path(pages: Pages, jobs_url: str) -> None:
    def forward(route: Route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace("/below/a/path/", "/")))

    page = pages.blank(jobs_url.split("/")[2])
    page.route("**/*", lambda route: forward(route) if "/below/a/path/" in route.request.url else route.abort())
    page.goto(f"{jobs_url}below/a/path/")
    choose_sample(page)
    make(page)
    expect(page.locator("#stage video")).to_be_visible()
