"""The way from nothing to a playing video, as somebody goes it who never saw the page; over real models."""

from playwright.sync_api import Page, expect

PLAYS = """video => new Promise((done) => {
    video.ontimeupdate = () => video.currentTime > 0.2 && done(true);
})"""


def test_two_clicks_lead_from_nothing_to_a_playing_video(page: Page) -> None:
    page.get_by_role("button", name="Try it with the sample").click()
    page.get_by_role("button", name="Make the video").click()
    video = page.locator("#stage video")
    expect(video).to_be_visible()
    assert video.evaluate(PLAYS)
    expect(page.locator("#stage")).to_contain_text("Frames178")
    expect(page.get_by_role("link", name="Download")).to_have_attribute("download", "sample-face-sample-speech.mp4")
