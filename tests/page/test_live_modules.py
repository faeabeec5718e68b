"""The modules of the tab "Talk live" that need no page: messages, what is speech, which frame is heard when."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page

from tests.page.conftest import Pages, loop_of
from tests.support.live_taps import tapped_page
from tests.support.marked_live import Media, serve_marked_live

LOUD, QUIET = 0.1, 0.001


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve_marked_live(Media()) as (url, _):
        yield f"{url}live-protocol.js"  # its text: any document of the service can import the modules


@pytest.fixture(scope="module")
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A document for all tests: the modules keep nothing."""
    opened = Pages(browser)
    with loop_of(browser):
        page = opened.open(url)
    yield page
    with loop_of(browser):
        opened.close()


def call(page: Page, module: str, script: str, argument: Any = None) -> Any:
    """Run a function of the names of a module, such as `({ parseFrame }, data) => …`."""
    return page.evaluate(f"async (argument) => ({script})(await import('./{module}'), argument)", argument)


def parse(page: Page, data: bytes) -> Any:
    script = """({ parseFrame }, bytes) => {
        const { sound, jpeg, ...rest } = parseFrame(new Uint8Array(bytes).buffer);
        return { ...rest, sound: [...sound], jpeg: [...jpeg] };
    }"""
    return call(page, "live-protocol.js", script, list(data))


def test_a_frame_is_read_with_its_sound_and_its_picture(page: Page) -> None:
    frame = parse(page, struct.pack("<IIdhh", 7, 4, 1.5, -32768, 12) + b"jpg")
    expected = {"index": 7, "soundTime": 1.5, "atRest": False, "sound": [-32768, 12], "jpeg": list(b"jpg")}
    assert frame == expected
    assert parse(page, struct.pack("<IId", 8, 0, -1.0))["atRest"]


@pytest.mark.parametrize("data", [b"short", struct.pack("<IId", 0, 3, 0.0) + b"abc", struct.pack("<IId", 0, 8, 0.0)])
def test_a_frame_that_is_cut_is_an_error(page: Page, data: bytes) -> None:
    with pytest.raises(Error, match="a frame"):
        parse(page, data)


@pytest.mark.parametrize(
    ("page_address", "expected"),
    [
        ("http://127.0.0.1:16000/", "ws://127.0.0.1:16000/v1/live"),
        ("https://example.org/avatar/#live", "wss://example.org/avatar/v1/live"),
    ],
)
def test_the_socket_is_at_the_host_and_below_the_path_of_the_page(page: Page, page_address: str, expected: str) -> None:
    assert call(page, "live-protocol.js", "({ socketAddress }, page) => socketAddress(page)", page_address) == expected


def spoken(page: Page, loudness: list[float]) -> tuple[list[int], list[int]]:
    """Return the numbers of the pieces of 40 ms that are sent, and of those after which the speech ends."""
    script = """({ SpeechDetector }, loudness) => {
        const detector = new SpeechDetector(0.04);
        const taken = loudness.map((each, n) => ({ n, ...detector.take({ n, loudness: each }) }));
        const ends = taken.filter(({ ended }) => ended);
        return [taken.flatMap(({ send }) => send), ends].map((pieces) => pieces.map(({ n }) => n));
    }"""
    sent, ends = call(page, "live-speech.js", script, loudness)
    return sent, ends


def test_nothing_is_sent_while_nobody_speaks(page: Page) -> None:
    assert spoken(page, [QUIET] * 100) == ([], [])


def test_speech_is_sent_with_what_came_before_it_and_ends_after_a_pause(page: Page) -> None:
    sent, ends = spoken(page, [QUIET] * 50 + [LOUD] * 25 + [QUIET] * 50)
    assert sent == list(range(45, 90))  # 0.2 s before, and 0.6 s after it
    assert ends == [89]


def test_a_pause_between_words_does_not_end_the_speech(page: Page) -> None:
    sent, ends = spoken(page, [QUIET] * 10 + ([LOUD] * 10 + [QUIET] * 10) * 5 + [QUIET] * 20)
    assert len(ends) == 1
    assert sent == list(range(sent[0], ends[0] + 1))


def test_a_fan_that_starts_is_noise_after_some_seconds(page: Page) -> None:
    sent, ends = spoken(page, [QUIET] * 50 + [0.02] * 500)
    assert len(ends) == 1
    assert sent[-1] < 300


def frames_at(page: Page, steps: list[list[Any]], times: list[float]) -> Any:
    script = """({ Timeline }, [steps, times]) => {
        const timeline = new Timeline(25);
        for (const [name, ...values] of steps) timeline[name](...values);
        return times.map((time) => timeline.frameAt(time));
    }"""
    return call(page, "live-player.js", script, [steps, times])


def test_the_frame_of_a_time_is_the_one_whose_sound_is_heard_then(page: Page) -> None:
    assert frames_at(page, [["begin", 10, 2.0]], [1.99, 2.0, 2.039, 2.04, 62.0]) == [None, 10, 10, 11, 1510]


def test_no_frame_is_due_in_a_gap_and_the_next_run_begins_where_it_says(page: Page) -> None:
    steps = [["begin", 0, 1.0], ["end", 1.2], ["begin", 5, 1.5], ["begin", 20, 1.7]]
    assert frames_at(page, steps, [1.19, 1.3, 1.5, 1.69, 1.7]) == [4, None, 5, 9, 20]


def test_nothing_that_still_comes_reaches_a_page_that_has_left(page: Page, url: str) -> None:
    script = """({ LiveSession }, address) => new Promise((resolve) => {
        const told = [];
        const tell = (name) => () => told.push(name);
        const on = { session: tell("session"), frame: tell("frame"), close: tell("end") };
        const session = new LiveSession(address, { avatar: "marked", sampleRate: 48000 }, on);
        session.end();
        session.cancelSoon();
        let count = 0;
        session.socket.addEventListener("message", () => ++count === 3 && resolve(told));
    })"""
    assert call(page, "live-session.js", script, url.replace("http", "ws")) == ["end"]


def test_a_session_from_which_nothing_comes_is_lost(browser: Browser) -> None:
    script = """({ LiveSession }, address) => new Promise((resolve) => {
        const on = { session: () => {}, frame: () => {}, close: resolve };
        new LiveSession(address, { avatar: "marked", sampleRate: 48000 }, on, 0.2);
    })"""
    with serve_marked_live(Media(fps=0.1)) as (slow, _), tapped_page(browser) as page:  # a frame in ten seconds
        page.goto(f"{slow}live-protocol.js")
        lost = call(page, "live-session.js", script, slow.replace("http", "ws"))
    assert lost["detail"] == "The connection was lost: nothing has come for 0.2 s."
