"""Jobs on the page: progress, cancel, a reload in the middle, the last jobs of this browser."""

import re

import pytest
from playwright.sync_api import Page, expect

from avatar.errors import ClientError
from tests.page.conftest import Pages
from tests.page.test_form import choose_sample, make
from tests.support.page_gateway import PacedRender, wait_until


@pytest.fixture
def running(pages: Pages, jobs_url: str, render: PacedRender) -> Page:
    """The page while its job has made 20 of 50 frames."""
    render.hold()
    page = pages.open(jobs_url)
    choose_sample(page)
    make(page)
    expect(page.locator("#stage")).to_contain_text("20 of 50 frames")
    return page


def test_progress_is_shown_by_stage_with_the_frames_that_are_done(running: Page, render: PacedRender) -> None:
    bar = running.get_by_role("progressbar", name="Progress")
    expect(bar).to_have_attribute("value", "0.4")
    expect(running.locator(".steps .done")).to_have_text(
        ["Send the files", "Wait for a place", "Prepare face and speech"]
    )
    expect(running.locator(".steps [aria-current=step]")).to_have_text("Make the frames")
    expect(running.get_by_role("status")).to_have_text("Make the frames: 25 %")
    expect(running).to_have_title("40 % · Talking avatar")
    expect(running.get_by_role("heading", name="Making your video")).to_be_focused()
    render.release()
    expect(running.locator("#stage video")).to_be_visible()
    expect(running.get_by_role("status")).to_have_text("The video is ready")
    expect(running.locator("#stage .figures")).to_contain_text("Frames50Length2.0 sFrame rate25 fps")
    running.get_by_text("Time of each stage").click()
    expect(running.get_by_role("row", name="lip sync")).to_contain_text("1.50 s")


def test_a_job_is_canceled(running: Page, render: PacedRender) -> None:
    running.get_by_role("button", name="Cancel").click()
    expect(running.get_by_role("heading", name="Canceled")).to_be_visible()
    wait_until(lambda: render.cancelled == 1)
    expect(running.locator("#history-list")).to_contain_text("canceled")


def test_a_reload_in_the_middle_goes_on_with_the_job(running: Page, render: PacedRender) -> None:
    running.reload()
    expect(running.locator("#stage")).to_contain_text("20 of 50 frames")
    expect(running.locator("#history-list")).to_contain_text("sample-face.jpg")
    expect(running.locator("#history-list")).to_contain_text("being made")
    render.release()
    expect(running.locator("#stage video")).to_be_visible()
    expect(running.get_by_role("link", name="Download")).to_have_attribute("download", "sample-face-sample-speech.mp4")


def test_a_lost_connection_is_said_and_taken_up_again(running: Page, render: PacedRender) -> None:
    running.context.set_offline(True)
    running.evaluate("window.stop()")  # ends the stream of events, which offline alone does not
    alert = running.locator("#stage").get_by_role("alert")
    expect(alert).to_contain_text("The connection is lost")
    running.context.set_offline(False)
    render.release()
    expect(running.locator("#stage video")).to_be_visible()


def test_the_last_videos_are_shown_again_and_forgotten(running: Page, render: PacedRender) -> None:
    render.release()
    expect(running.locator("#stage video")).to_be_visible()
    running.reload()
    item = running.locator("#history-list button")
    expect(item).to_contain_text("sample-face.jpg")
    expect(item.locator("img")).to_have_attribute("src", re.compile("^data:image/jpeg;base64,"))
    expect(running.locator("#stage video")).to_have_count(0)
    item.click()
    expect(running.locator("#stage video")).to_be_visible()
    expect(item).to_have_attribute("aria-current", "true")
    running.get_by_role("button", name="Forget them").click()
    expect(running.locator("#history")).to_be_hidden()


def test_a_job_that_the_service_has_no_more_leaves_the_list(running: Page, render: PacedRender, jobs_url: str) -> None:
    render.release()
    expect(running.locator("#stage video")).to_be_visible()
    identity = running.evaluate("JSON.parse(localStorage.getItem('avatar.jobs'))[0].id")
    assert running.request.delete(f"{jobs_url}v1/jobs/{identity}").status == 204
    running.locator("#history-list button").click()
    expect(running.locator("#stage").get_by_role("alert")).to_have_text("there is no such job")
    expect(running.locator("#history")).to_be_hidden()


def test_a_job_that_fails_says_why(running: Page, render: PacedRender) -> None:
    render.error = ClientError("the file is too long for this service")
    render.release()
    expect(running.get_by_role("heading", name="There is no video")).to_be_visible()
    expect(running.locator("#stage").get_by_role("alert")).to_have_text("the file is too long for this service")
    expect(running.locator("#history-list")).to_contain_text("failed")
