"""The page for everyone: by keyboard, with a screen reader, dark and light, on a phone."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from avatar.errors import FaceNotFound
from tests.page.conftest import Keyed, Pages, inaccessible
from tests.page.test_form import choose_sample, make
from tests.support.page_gateway import PacedRender


def every_state(page: Page, render: PacedRender, check: Callable[[str], None]) -> None:
    """Bring the page into each of its states, and call `check` in it."""
    make(page)
    expect(page.locator("#face_file-error")).to_be_visible()
    check("empty, with the errors of missing files")
    choose_sample(page)
    page.get_by_role("button", name="About: Background").click()
    page.get_by_text("More options").click()
    page.get_by_label("Background", exact=True).select_option(label="Another color…")
    page.get_by_label("Fps").fill("many")
    make(page)
    expect(page.locator("#option-fps-error")).to_be_visible()
    check("options, and the error of one")
    page.get_by_label("Fps").fill("25")
    page.get_by_text("More options").click()
    render.hold()
    make(page)
    expect(page.locator("#stage")).to_contain_text("20 of 50 frames")
    check("progress")
    render.stand_ins, render.notes = ("wav2lip",), ("audio_file: 2.0 s of gaps in its clock were closed",)
    render.release()
    expect(page.locator("#stage video")).to_be_visible()
    page.get_by_text("Time of each stage").click()
    check("the video")
    render.error = FaceNotFound()
    make(page)
    expect(page.get_by_role("heading", name="There is no video")).to_be_visible()
    check("no video")


def test_every_state_is_accessible_light_and_dark_and_fits_on_a_phone(
    pages: Pages, jobs_url: str, render: PacedRender
) -> None:
    page = pages.open(jobs_url, reduced_motion="reduce")
    found = {}

    def check(state: str) -> None:
        if wrong := inaccessible(page):
            found[state] = wrong

    every_state(page, render, check)
    assert found == {}


def test_the_question_for_the_key_is_accessible(pages: Pages, keyed: Keyed) -> None:
    page = pages.open(keyed.url)
    page.get_by_role("button", name="API key").click()
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    assert inaccessible(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_the_whole_way_goes_by_keyboard(pages: Pages, jobs_url: str, render: PacedRender) -> None:
    page = pages.open(jobs_url)
    press = page.keyboard.press
    press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    press("Enter")
    press("Tab")
    expect(page.get_by_role("tab", name="Make a video")).to_be_focused()
    press("Tab")
    expect(page.get_by_role("button", name="Try it with the sample")).to_be_focused()
    press("Enter")
    expect(page.get_by_role("button", name="Make the video")).to_be_focused()
    press("Enter")
    expect(page.locator("#stage video")).to_be_visible()
    expect(page.get_by_role("heading", name="Your video")).to_be_focused()
    press("Tab")
    expect(page.locator("#stage video")).to_be_focused()


def test_the_keys_of_tabs_choose_a_tab(pages: Pages, jobs_url: str) -> None:
    page = pages.open(jobs_url)
    video, live = page.get_by_role("tab", name="Make a video"), page.get_by_role("tab", name="Talk live")
    video.focus()
    page.keyboard.press("ArrowRight")
    expect(live).to_be_focused()
    expect(live).to_have_attribute("aria-selected", "true")
    expect(page.locator("#panel-video")).to_be_hidden()
    page.keyboard.press("Home")
    expect(video).to_be_focused()
    expect(page.locator("#panel-video")).to_be_visible()
