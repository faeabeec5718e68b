"""The tab "Talk live", in a real Chromium, with a service whose frames carry marks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.page.conftest import inaccessible
from tests.support.live_taps import Tap, tapped_page
from tests.support.marked_live import REST, MarkedLive, Media, serve_marked_live

INTERRUPT_AT_FLASH = """() => new Promise((resolve) => {
    const look = () => {
        if (!tap.flashes.length) return requestAnimationFrame(look);
        document.querySelector("#live-interrupt").click();
        resolve([tap.clocks.at(-1)[3], performance.now() / 1000]);
    };
    look();
})"""


@pytest.fixture
def live() -> Iterator[tuple[str, MarkedLive]]:
    with serve_marked_live(Media(rest=0.4, speech=1.2, mark_every=8)) as served:
        yield served


@pytest.fixture
def service(live: tuple[str, MarkedLive]) -> MarkedLive:
    return live[1]


@pytest.fixture
def tab(browser: Browser, live: tuple[str, MarkedLive]) -> Iterator[Page]:
    """Return a page at the tab; no error of a script or of the policy may appear."""
    with tapped_page(browser) as page:
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{live[0]}#live")
        yield page
    assert not problems


def choose_sample(page: Page) -> None:
    page.get_by_role("button", name="Use the sample face").click()
    expect(page.locator("#panel-live .file-name")).to_have_text("sample-face.jpg")


def start(page: Page) -> None:
    choose_sample(page)
    page.get_by_role("button", name="Start talking").click()
    expect(page.locator("#live-state")).to_have_text(re.compile("^Speak"))


def state(page: Page) -> Locator:
    return page.locator("#live-state")


def pixel(page: Page) -> int:
    """Return the brightness of the picture that is shown."""
    script = "document.querySelector('#live-canvas').getContext('2d').getImageData(8, 8, 1, 1).data[0]"
    return int(page.evaluate(script))


def wait_for(page: Page, condition: str) -> None:
    page.wait_for_function(condition, timeout=30_000)


def wait_until(page: Page, condition: Callable[[], bool]) -> None:
    """Wait for what the service has got."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)


def test_a_person_starts_with_two_clicks_and_the_face_plays_with_its_sound(tab: Page, service: MarkedLive) -> None:
    start(tab)
    wait_for(tab, "tap.clicks.length > 1 && tap.flashes.length > 1")
    session = service.sessions[0]
    assert session.start["face_bytes"] == len(session.face) > 10_000
    assert session.start["sample_rate"] == tab.evaluate("tap.rate")
    expect(tab.locator("#live-rate")).to_have_text(re.compile(r"^(?!0\.0)\d+\.\d$"))
    expect(tab.locator("#live-latency")).to_have_text("0.21 s")


def test_interrupt_stops_sound_and_pictures_at_once_and_says_which_was_shown(tab: Page, service: MarkedLive) -> None:
    start(tab)
    at, seen_at = tab.evaluate(INTERRUPT_AT_FLASH)
    expect(state(tab)).to_have_text(re.compile("^Interrupted"))
    wait_for(tab, "tap.clicks.length > 2")  # of the next segment
    clear = next(message for message in service.sessions[0].messages if message["type"] == "clear")
    tap = Tap.read(tab)
    _, position = service.media.place(clear["shown"])
    left = (service.media.speech * service.media.fps - position) / service.media.fps  # of the segment's clicks
    assert position >= 0
    assert not np.any((tap.clicks > at + 0.1) & (tap.clicks < at + left - 0.1))
    assert not np.any((tap.flashes > seen_at) & (tap.flashes < seen_at + left - 0.1))


def test_end_leaves_at_once_and_a_new_session_can_start(tab: Page, service: MarkedLive) -> None:
    start(tab)
    tab.get_by_role("button", name="End").click()
    expect(state(tab)).to_have_text("The session has ended.")
    tab.get_by_role("button", name="Start talking").click()
    expect(state(tab)).to_have_text(re.compile("^Speak"))
    first, second = service.sessions
    wait_until(tab, lambda: first.messages[-1:] == [{"type": "end"}])
    assert second.start["avatar"] == "marked"  # the service has this face already
    assert second.start["face_bytes"] is None


def test_mute_ends_the_sentence_and_sends_nothing_more(tab: Page, service: MarkedLive) -> None:
    start(tab)  # Chromium's microphone beeps
    mute = tab.get_by_role("button", name="Mute")
    expect(tab.locator("#live-stage")).to_have_class(re.compile("speaking"), timeout=30_000)
    mute.click()
    expect(mute).to_have_attribute("aria-pressed", "true")
    session = service.sessions[0]
    wait_until(tab, lambda: {"type": "segment_end"} in session.messages)
    sent = len(session.samples)
    tab.wait_for_timeout(500)
    assert len(session.samples) == sent > 0


def test_an_error_about_the_face_appears_at_its_field_in_the_words_of_the_service(
    tab: Page, service: MarkedLive
) -> None:
    service.refusals = [{"status": 400, "code": "face_not_found", "detail": "Face not detected! Use another picture."}]
    choose_sample(tab)
    tab.get_by_role("button", name="Start talking").click()
    expect(tab.locator("#live-face-file-error")).to_contain_text("Face not detected! Use another picture.")
    expect(tab.locator("#live-face-file")).to_have_attribute("aria-invalid", "true")
    expect(tab.locator("#live-face-file")).to_be_focused()


def test_a_full_service_says_when_to_try_again(tab: Page, service: MarkedLive) -> None:
    service.refusals = [{"status": 503, "code": "busy", "detail": "limit of 4 sessions reached", "retry_after": 7}]
    choose_sample(tab)
    tab.get_by_role("button", name="Start talking").click()
    expect(tab.locator("#live-alert")).to_contain_text("limit of 4 sessions reached. Try again in 7 s.")
    expect(tab.get_by_role("button", name="Start talking")).to_be_focused()


def test_a_service_without_live_sessions_is_told(tab: Page, service: MarkedLive) -> None:
    service.accepts = False
    choose_sample(tab)
    tab.get_by_role("button", name="Start talking").click()
    expect(tab.locator("#live-alert")).to_contain_text("The service opens no live session")


def test_a_key_is_asked_for_and_sent(tab: Page, service: MarkedLive) -> None:
    service.refusals = [{"status": 401, "code": "unauthorized", "detail": "this service needs an API key"}]
    choose_sample(tab)
    tab.get_by_role("button", name="Start talking").click()
    tab.get_by_label("Key", exact=True).fill("secret")
    tab.keyboard.press("Enter")
    expect(state(tab)).to_have_text(re.compile("^Speak"))
    assert "key" not in service.sessions[0].start
    assert service.sessions[1].start["key"] == "secret"


def test_the_microphone_is_muted_while_another_tab_is_shown(tab: Page, service: MarkedLive) -> None:
    start(tab)
    tab.get_by_role("tab", name="Make a video").click()
    tab.get_by_role("tab", name="Talk live").click()
    expect(tab.get_by_role("button", name="Mute")).to_have_attribute("aria-pressed", "true")
    expect(state(tab)).to_have_text("The microphone is muted: this tab is not shown.")


def test_a_lost_connection_is_told_and_connected_again_with_one_click(tab: Page, service: MarkedLive) -> None:
    start(tab)
    wait_for(tab, "tap.clicks.length > 0")
    service.cut()
    expect(tab.locator("#live-alert")).to_have_text("The connection was lost.")
    service.refusals = [{"status": 404, "code": "not_found", "detail": "avatar: not known; send face_file"}]
    tab.get_by_role("button", name="Connect again").click()
    expect(state(tab)).to_have_text(re.compile("^Speak"))
    _, forgotten, again = service.sessions
    assert forgotten.start["avatar"] == "marked"
    assert again.face == service.sessions[0].face  # the service forgot the face, and the page sends it again


def test_a_face_that_the_service_keeps_is_chosen_from_a_list(tab: Page, service: MarkedLive) -> None:
    service.pages[""]["jobs"] = "/v1/jobs"
    kept = {"id": "kept-1", "width": 640, "height": 480, "frames": None, "created_at": "2026-11-28T12:00:00Z"}
    service.pages["avatars"] = {"avatars": [kept], "next": None}
    tab.reload()
    tab.get_by_label("A face that the service keeps").select_option("kept-1")
    tab.get_by_role("button", name="Start talking").click()
    expect(state(tab)).to_have_text(re.compile("^Speak"))
    assert service.sessions[0].start["avatar"] == "kept-1"
    assert service.sessions[0].start["face_bytes"] is None


def test_a_service_that_is_slower_than_the_speech_is_told(browser: Browser) -> None:
    with serve_marked_live(Media(rest=60)) as (url, _), tapped_page(browser) as page:
        page.goto(f"{url}#live")
        start(page)  # the microphone beeps, and no frames of that come
        expect(state(page)).to_have_text(re.compile("^The service makes frames more slowly than you speak"))


def test_without_a_microphone_the_face_says_the_sample(tab: Page, service: MarkedLive) -> None:
    failing = "async () => { throw new DOMException('', 'NotFoundError'); }"
    tab.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = {failing}; }}")
    start(tab)
    expect(tab.locator("#live-alert")).to_contain_text("No microphone is connected.")
    tab.get_by_role("button", name="Say the sample").click()
    expect(tab.locator("#live-stage")).to_have_class(re.compile("speaking"), timeout=30_000)
    wait_for(tab, "tap.clicks.length > 0")
    assert max(int(np.abs(piece).max()) for piece in service.sessions[0].samples) > 1000


def test_the_face_does_not_move_at_rest_where_motion_is_unwanted(browser: Browser) -> None:
    with serve_marked_live(Media(rest=60, jitter=0)) as (url, _), tapped_page(browser, reduced_motion="reduce") as page:
        page.goto(f"{url}#live")
        start(page)
        wait_for(page, "tap.clocks.at(-1)?.[1] > 0.2")
        page.evaluate("document.querySelector('#live-canvas').getContext('2d').clearRect(0, 0, 320, 240)")
        page.wait_for_timeout(300)
        assert pixel(page) != REST


def test_everybody_can_use_it_also_on_a_phone_and_in_the_dark(tab: Page) -> None:
    expect(tab.get_by_role("button", name="Start talking")).to_be_enabled()
    assert inaccessible(tab) == []
    tab.get_by_role("button", name="Start talking").click()  # without a face
    start(tab)
    wait_for(tab, "tap.clicks.length > 0")
    assert inaccessible(tab) == []


def test_everything_is_done_by_keyboard(tab: Page, service: MarkedLive) -> None:
    sample = tab.get_by_role("button", name="Use the sample face")
    expect(sample).to_be_enabled()
    sample.focus()
    tab.keyboard.press("Enter")
    expect(tab.locator("#panel-live .file-name")).to_be_visible()
    tab.get_by_role("checkbox").focus()
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("button", name="Start talking")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("button", name="Interrupt")).to_be_focused()
    tab.keyboard.press("Escape")
    expect(state(tab)).to_have_text(re.compile("^Interrupted"))
    for _ in range(3):
        tab.keyboard.press("Tab")
    expect(tab.get_by_role("button", name="End")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(state(tab)).to_have_text("The session has ended.")
    messages = service.sessions[0].messages
    wait_until(tab, lambda: [each["type"] for each in messages if each["type"] in ("clear", "end")] == ["clear", "end"])
