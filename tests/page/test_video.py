"""The way from nothing to a playing video, as a person goes it who never saw the page; over real models."""

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.support.media import frame_rate, tone, write_wav

PLAYS = """video => new Promise((done) => {
    video.ontimeupdate = () => video.currentTime > 0.2 && done(true);
})"""


def test_two_clicks_lead_from_nothing_to_a_playing_video(page: Page) -> None:
    page.get_by_role("button", name="Try it with the sample").click()
    page.get_by_role("button", name="Make the video").click()
    assert page.locator("#stage video").evaluate(PLAYS)
    expect(page.locator("#stage .figures")).to_contain_text("Frames178Length7.1 s")
    expect(page.get_by_role("link", name="Download")).to_have_attribute("download", "sample-face-sample-speech.mp4")
    # loudly: before the first video, and at each video
    expect(page.get_by_role("complementary", name="Stand-in models")).to_contain_text("not the real models")
    expect(page.locator("#video-stand-ins")).to_contain_text("Made with stand-ins (s3fd, wav2lip")


def test_own_files_and_options_make_the_video_that_is_downloaded(page: Page, samples: Path, tmp_path: Path) -> None:
    page.locator("#face_file").set_input_files(samples / "face.png")
    page.locator("#audio_file").set_input_files(write_wav(tmp_path / "my voice.wav", tone(0.4)))
    expect(page.get_by_label("Quality", exact=True)).to_have_value("standard")
    page.get_by_label("Quality", exact=True).select_option("draft")
    page.get_by_text("More options").click()
    page.get_by_label("Fps").fill("30")
    page.get_by_role("button", name="Make the video").click()
    expect(page.locator("#stage .figures")).to_contain_text("Frames12")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "face-my-voice.mp4"
    download.value.save_as(tmp_path / "video.mp4")
    assert frame_rate(tmp_path / "video.mp4") == 30


def test_the_microphone_records_the_speech(page: Page, samples: Path) -> None:
    page.locator("#face_file").set_input_files(samples / "face.png")
    page.get_by_role("button", name="Record").click()
    expect(page.locator(".clock")).to_have_text("0:01")
    page.get_by_role("button", name="Make the video").click()  # ends the recording, too
    expect(page.locator("#speech-field .file-name")).to_have_text("recording.webm")
    expect(page.locator("#speech-field audio")).to_be_visible()
    assert page.locator("#stage video").evaluate(PLAYS)
    length = page.locator("#stage video").evaluate("video => video.duration")
    assert length > 0.8
