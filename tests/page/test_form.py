"""The form of the page: what is wrong is said at its field, in the words of the service."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from avatar.errors import FaceNotFound, InvalidField, Unavailable
from avatar.form.fields import OPTION_FIELDS
from tests.page.conftest import Pages
from tests.support.page_gateway import PacedRender


@pytest.fixture
def form(pages: Pages, jobs_url: str) -> Page:
    """The page with the sample chosen."""
    page = pages.open(jobs_url)
    choose_sample(page)
    return page


def choose_sample(page: Page) -> None:
    page.get_by_role("button", name="Try it with the sample").click()
    expect(page.locator("#speech-field .file-name")).to_have_text("sample-speech.mp3")


def make(page: Page) -> None:
    page.get_by_role("button", name="Make the video").click()


def test_a_missing_file_is_asked_for_at_its_field(pages: Pages, jobs_url: str) -> None:
    page = pages.open(jobs_url)
    make(page)
    face = page.locator("#face_file")
    expect(face).to_be_focused()
    expect(face).to_have_accessible_description(
        "A picture or a video of a person, from the front. Choose a picture or a video of a face, or try the sample."
    )
    expect(face).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#audio_file-error")).to_contain_text("Choose or record a speech")


def test_every_option_of_the_schema_is_there_with_its_description(form: Page) -> None:
    form.get_by_text("More options").click()
    for option in OPTION_FIELDS:
        control = form.locator(f"#option-{option.name}")
        expect(control).to_be_visible()
        shown = form.locator(f"#option-{option.name}-hint").text_content()
        assert shown == option.description.replace("`", "")
        if option.choices and option.choices != ("true", "false"):
            assert control.locator("option").evaluate_all("all => all.map(each => each.value)") == list(option.choices)
    expect(form.locator("#option-background_file")).to_be_attached()


def test_only_options_that_differ_from_their_defaults_are_sent(form: Page, render: PacedRender) -> None:
    form.get_by_label("Background", exact=True).select_option(label="Another color…")
    form.get_by_label("Color", exact=True).fill("#123456")
    form.get_by_label("Blend", exact=True).select_option("feather")
    form.evaluate(
        """() => {
            const send = XMLHttpRequest.prototype.send;
            XMLHttpRequest.prototype.send = function (form) {
                window.sent = [...form].filter(([, value]) => typeof value === "string");
                send.call(this, form);
            };
        }"""
    )
    make(form)
    expect(form.locator("#stage video")).to_be_visible()
    fields = dict(form.evaluate("window.sent"))
    assert fields == {"avatarFileType": "jpg", "background": "#123456", "blend": "feather"}


def test_an_option_that_the_service_rejects_says_so_at_its_field(form: Page) -> None:
    form.get_by_text("More options").click()
    form.get_by_label("Fps").fill("many")
    form.get_by_text("More options").click()  # the field is out of sight when the answer comes
    make(form)
    fps = form.get_by_label("Fps")
    expect(fps).to_be_focused()
    expect(form.locator("#option-fps-error")).to_contain_text("fps: expected")
    fps.fill("25")
    make(form)
    expect(form.locator("#stage video")).to_be_visible()
    expect(form.locator("#option-fps-error")).to_be_hidden()


def test_what_the_job_finds_wrong_in_a_file_is_said_at_its_field(form: Page, render: PacedRender) -> None:
    wrong = {"face_file": FaceNotFound(), "audio_file": InvalidField("audio_file", "it has no sound")}
    for field, error in wrong.items():
        render.error = error
        make(form)
        expect(form.locator(f"#{field}-error")).to_have_text(str(error))
        expect(form.locator(f"#{field}")).to_be_focused()
        expect(form.locator("#stage").get_by_role("alert")).to_have_text(str(error))
    expect(form.locator("#face_file-error")).to_be_hidden()  # the file was sent again, and was not the one in question


def test_what_is_wrong_with_no_field_is_said_above_the_button(
    pages: Pages, small_url: str, render: PacedRender
) -> None:
    page = pages.open(small_url)
    choose_sample(page)
    render.error = Unavailable("the models cannot be reached", retry_after=7)
    make(page)
    alert = page.locator("#form-alert")
    expect(alert).to_have_text("the models cannot be reached Try again in 7 s.")
    expect(alert).to_have_role("alert")


def test_a_file_that_is_dropped_is_chosen(pages: Pages, jobs_url: str, samples: Path) -> None:
    page = pages.open(jobs_url)
    script = """field => {
        const files = new DataTransfer();
        files.items.add(new File(["a face"], "dropped.png", {type: "image/png"}));
        field.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
    }"""
    page.locator("#face-field .drop").evaluate(script)
    expect(page.locator("#face-field .file-name")).to_have_text("dropped.png")
    page.get_by_role("button", name="Remove: Face").click()
    expect(page.locator("#face-field")).to_contain_text("or drop one here")


def test_a_file_that_is_too_large_is_said_at_its_field(pages: Pages, small_url: str, tmp_path: Path) -> None:
    page = pages.open(small_url)
    choose_sample(page)
    (tmp_path / "large.png").write_bytes(bytes(200_000))
    page.locator("#face_file").set_input_files(tmp_path / "large.png")
    make(page)
    expect(page.locator("#face_file-error")).to_have_text("face_file: the file is larger than 100000 bytes")
